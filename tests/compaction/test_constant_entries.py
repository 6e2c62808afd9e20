"""Entries that are the same for all inputs have the values of the network."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxsparse.compaction import constant_entries
from jaxsparse.coupling.program import trace

X = jnp.ones((2, 3))
# Of three units the first varies; the others are 0.75 and -0.5.
PARAMS = {"scale": jnp.array([[1.0, 0, 0]]), "shift": jnp.array([[0, 0.75, -0.5]])}
LARGE = 2**24 + 1  # no float of 32 bits


def number(condition: Any, dtype: Any = jnp.float32) -> Any:
    return condition.astype(dtype)


def rounded(y: Any) -> Any:
    """Rounds to small integers, as quantized layers do."""
    return number(y.astype(jnp.int8))


# Functions of the units, and what they return for those that are constant.
CASES: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    "difference of comparisons": (
        lambda y: number(y > 0.25) - number(y < -0.25),
        [1, -1],
    ),
    "sum of comparisons": (lambda y: number(y > 0) + number(y > 0.25), [2, 0]),
    "negated comparison": (lambda y: -number(y > 0), [-1, 0]),
    "comparisons along an axis": (
        lambda y: number(jnp.stack([y > 0, y > 0.25, y > 1])).sum(0),
        [2, 0],
    ),
    "comparison in bfloat16": (
        lambda y: number(y > 0, jnp.bfloat16) + number(y > -1, jnp.bfloat16),
        [2, 1],
    ),
    "square of small integers": (
        lambda y: rounded(100 * y) * rounded(100 * y),
        [5625, 2500],
    ),
    "root of small integers": (
        lambda y: jnp.sqrt(rounded(abs(4 * y))),
        [np.sqrt(np.float32(3)), np.sqrt(np.float32(2))],
    ),
    "barrier beside a comparison": (
        lambda y: lax.optimization_barrier((y > 0, y))[1],
        [0.75, -0.5],
    ),
    "large integers beside others": (
        lambda y: jnp.concatenate([y[:, :1].astype(int), jnp.full((2, 2), LARGE)], 1),
        [LARGE, LARGE],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_constants_are_those_of_the_network(name: str) -> None:
    function, wanted = CASES[name]
    program = trace(lambda p, x: function(x * p["scale"] + p["shift"]), PARAMS, X)
    entries = constant_entries.forward(program, PARAMS)
    (output,) = program.outputs
    values = entries.values[output]
    np.testing.assert_array_equal(entries.varies[output], [[True, False, False]] * 2)
    np.testing.assert_array_equal(values, [[0, *wanted]] * 2)
    # As in the program, but with floats of 32 bits.
    assert values.dtype == (jnp.int32 if LARGE in wanted else jnp.float32)


def test_keys_of_random_numbers_may_stand_beside_those_of_an_input() -> None:
    def apply(p: Any, key: Any) -> Any:
        return jax.random.key_data(jnp.stack([jax.random.key(0), key]))

    program = trace(apply, {}, jax.random.key(1))
    entries = constant_entries.forward(program, {})
    assert entries.varies[program.outputs[0]].all()
