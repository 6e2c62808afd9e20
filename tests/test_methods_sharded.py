"""Weights that are sharded stay where they are, whatever method trains them."""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import methods
from helpers.campaigns import case
from helpers.method_runs import PLAINLY
from helpers.methods import METHODS
from helpers.states import check_alike
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxsparse import transforms


@pytest.fixture(autouse=True)
def wide() -> Any:
    # Programs round differently: in float64 no score is near enough to another.
    with jax.enable_x64(True):
        yield


SHAPES = {"first": (16, 24), "second": (24, 16)}
SPECS = {"first axis": P("model", None), "last axis": P(None, "model")}
SHARDED = {
    "gradual_magnitude": (),
    "gradual_magnitude global": ("last axis",),
    "sparse_evolution": (),
    "rigl": ("first axis",),
    "snfs": (),
}
# A move of more numbers than these is one of a row or column of a weight, or of more.
# A sum is of counts: where a last axis is split one for each row, for each sign.
FEW = {"all-reduce": 2 * (24 + 16)}
MOVES = re.compile(
    r" = (.*) (all-gather|all-to-all|collective-permute|all-reduce)(?:-start)?\("
)


def make_mesh(name: str) -> jax.sharding.Mesh:
    return jax.make_mesh((4,), (name,), axis_types=(AxisType.Auto,))


def make_layers(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return {
        name: {
            "bias": jnp.asarray(rng.normal(size=shape[1])),
            "kernel": jnp.asarray(rng.normal(size=shape)),
        }
        for name, shape in SHAPES.items()
    }


def moved(program: str) -> list[str]:
    """Lists the operations that move more than a few numbers between devices."""
    found = []
    for line in program.splitlines():
        match = MOVES.search(line)
        shapes = re.findall(r"\w\[([\d,]*)\]", match[1]) if match else []
        sizes = [math.prod(map(int, filter(None, s.split(",")))) for s in shapes]
        if match and sum(sizes) > FEW.get(match[2], 8):
            found.append(line.strip())
    return found


def test_what_moves_is_seen() -> None:
    mesh = make_mesh("model")
    weights = make_layers(0)["first"]["kernel"]
    spread = jax.device_put(weights, NamedSharding(mesh, P("model", None)))
    turned = NamedSharding(mesh, P(None, "model"))
    for shardings in (turned, NamedSharding(mesh, P())):
        program = jax.jit(lambda leaf: 2 * leaf, out_shardings=shardings)
        assert len(moved(program.lower(spread).compile().as_text())) == 1


@pytest.mark.parametrize(
    ("method", "axis"),
    [
        case(method, axis, always=axis in SHARDED[method])
        for method in SHARDED
        for axis in SPECS
    ],
)
def test_sharded_weights_stay_where_they_are(method: str, axis: str) -> None:
    tx = METHODS[method].make(optax.sgd(0.1, momentum=0.9))
    mesh, targets = make_mesh("model"), make_layers(1)

    def step(params: Any, state: Any, targets: Any) -> Any:
        grads = jax.tree.map(jnp.subtract, params, targets)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def place(tree: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.device_put(
                leaf, NamedSharding(mesh, SPECS[axis] if leaf.ndim == 2 else P())
            ),
            tree,
        )

    step = jax.jit(step, compiler_options=PLAINLY)
    params = make_layers(0)
    state = jax.jit(tx.init, compiler_options=PLAINLY)(params)
    params = transforms.stored_params(params, state)
    alone, spread = (params, state), place((params, state))
    where = jax.tree.map(lambda leaf: leaf.sharding, spread)
    away = place(targets)
    compiled = step.lower(*spread, away).compile()
    assert moved(compiled.as_text()) == []
    for _ in range(methods.UPDATES):
        alone = step(*alone, targets)
        spread = jax.block_until_ready(compiled(*spread, away))
        same = jax.tree.map(
            lambda leaf, old: leaf.sharding.is_equivalent_to(old, leaf.ndim),
            spread,
            where,
        )
        assert all(jax.tree.leaves(same))
        check_alike(spread, alone)
