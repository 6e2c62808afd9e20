"""Operations that move entries: positions are moved as JAX moves the entries."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxsparse.compaction import moves
from jaxsparse.coupling.program import Program, trace

ROWS = lax.GatherDimensionNumbers((), (1,), (1,), (0,), (0,))  # one of each row
TABLE = lax.GatherDimensionNumbers((1,), (0,), (0,))


def gather(x: Any, *rows: int, mode: str = "clip") -> Any:
    """Looks up rows; `mode` says what happens to indices outside."""
    index = np.array(rows, np.int32)[:, None]
    return lax.gather(x, index, TABLE, (1, x.shape[1]), mode=mode)


ONE = ((3, 4),)
# Functions, and the shapes of their arguments.
OPERATIONS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "broadcast": (lambda x: lax.broadcast_in_dim(x, (2, 3, 5, 4), (1, 3)), ONE),
    "broadcast an axis of length 1": (lambda x: jnp.broadcast_to(x, (3, 4)), ((1, 4),)),
    "cast": (lambda x: x.astype(jnp.bfloat16), ONE),
    "concatenate": (lambda x, y: lax.concatenate([x, y, x], 1), ((3, 4), (3, 2))),
    "copy": (jnp.copy, ONE),
    "dynamic slice": (lambda x: lax.dynamic_slice(x, (1, 2), (2, 2)), ONE),
    "dynamic slice beyond the ends": (
        lambda x: lax.dynamic_slice(x, (5, -9), (2, 2)),
        ONE,
    ),
    "dynamic update": (
        lambda x, y: lax.dynamic_update_slice(x, y, (1, 1)),
        ((3, 4), (2, 2)),
    ),
    "dynamic update beyond the ends": (
        lambda x, y: lax.dynamic_update_slice(x, y, (-9, 9)),
        ((3, 4), (2, 2)),
    ),
    "gather": (lambda x: gather(x, 2, 0, 2), ONE),
    "gather or fill": (lambda x: gather(x, 2, 0, mode="fill"), ONE),
    "name": (lambda x: checkpoint_name(x, "x"), ONE),
    "optimization barrier": (lax.optimization_barrier, ONE),
    "pad": (lambda x, y: lax.pad(x, y, ((1, 2, 0), (0, 0, 0))), ((3, 4), ())),
    "pad between": (lambda x, y: lax.pad(x, y, ((0, 1, 2), (2, 0, 1))), ((3, 4), ())),
    "pad by less than nothing": (
        lambda x, y: lax.pad(x, y, ((-1, 0, 1), (2, -3, 0))),
        ((3, 4), ()),
    ),
    "put on a device": (jax.device_put, ONE),
    "reduce the precision": (lambda x: lax.reduce_precision(x, 8, 7), ONE),
    "reshape": (lambda x: x.reshape(2, 6), ONE),
    "reverse": (lambda x: lax.rev(x, (0, 1)), ONE),
    "shard": (
        lambda x: lax.with_sharding_constraint(
            x, jax.sharding.SingleDeviceSharding(jax.devices()[0])
        ),
        ONE,
    ),
    "slice": (lambda x: x[1:, :2], ONE),
    "slice with strides": (lambda x: lax.slice(x, (0, 1), (3, 4), (2, 2)), ONE),
    "split": (lambda x: jnp.split(x, (1, 3), 1), ONE),
    "squeeze": (lambda x: x[:, 1], ONE),
    "stack": (lambda x, y: jnp.stack([x, y, x], 1), ONE * 2),
    "stop the gradient": (lax.stop_gradient, ONE),
    "tile": (lambda x: jnp.tile(x, (2, 3)), ONE),
    "transpose": (lambda x: x.T, ONE),
    "unstack": (lambda x: jnp.unstack(x, axis=1), ONE),
}


def traced(name: str) -> Program:
    function, shapes = OPERATIONS[name]
    floats = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return trace(lambda p, *x: function(*x), {}, *floats)


def follow(program: Program, positions: list[np.ndarray]) -> list[Any]:
    """Moves the positions of a program's inputs to its outputs."""
    known = dict(zip(program.inputs, positions, strict=True))
    for eqn in program.equations:
        found = moves.sources(eqn, program, program.constants)
        assert found is not None, eqn.name
        operands = [known[n].ravel() for n in eqn.inputs if n in known]
        flat = np.concatenate(operands)
        for number, places in zip(eqn.outputs, found, strict=True):
            known[number] = flat[places]
    return [known[n] for n in program.outputs]


@pytest.mark.parametrize("name", OPERATIONS)
def test_positions_move_as_entries_do(name: str) -> None:
    function, shapes = OPERATIONS[name]
    sizes = [math.prod(shape) for shape in shapes]
    flat = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    positions = [p.reshape(shape) for p, shape in zip(flat, shapes, strict=True)]
    got = follow(traced(name), positions)
    wanted = jax.tree.leaves(function(*(jnp.asarray(p, float) for p in positions)))
    for mine, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_every_operation_of_the_table_is_proved() -> None:
    proved = {eqn.name for name in OPERATIONS for eqn in traced(name).equations}
    assert proved == set(moves.MOVES)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.astype(jnp.int32),  # rounds
        lambda x: x.astype(bool),  # compares
        lambda x: x + x,
        lambda x: lax.reshape(x, (4, 3), (1, 0)),
        lambda x: gather(x, 2, 3),  # beyond the end
        lambda x: gather(x, -1),
        lambda x: lax.gather(x, np.ones((3, 1), np.int32), ROWS, (1, 1), mode="clip"),
        lambda x: lax.dynamic_slice(x, (x[0, 0].astype(int), 0), (1, 4)),
    ],
)
def test_what_is_not_only_moved_is_told_apart(function: Callable) -> None:
    x = jax.ShapeDtypeStruct((3, 4), jnp.float32)
    program = trace(lambda p, x: function(x), {}, x)
    assert moves.sources(program.equations[-1], program, program.constants) is None


def test_a_lookup_keeps_its_parameters_without_a_value_to_fill_with() -> None:
    """As in versions of JAX whose lookups lack that parameter."""
    program = traced("gather")
    (eqn,) = (eqn for eqn in program.equations if eqn.name == "gather")

    class Primitive:
        def bind(self, *operands: Any, **params: Any) -> Any:
            return eqn.primitive.bind(*operands, **params, fill_value=None)

    older = {k: v for k, v in eqn.params.items() if k != "fill_value"}
    without = eqn._replace(params=older, primitive=Primitive())
    found, wanted = (
        moves.sources(each, program, program.constants) for each in (without, eqn)
    )
    np.testing.assert_array_equal(found, wanted)
