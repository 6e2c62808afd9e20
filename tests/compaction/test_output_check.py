"""The comparison of outputs tells rounding from another function."""

from typing import Any

import jax.numpy as jnp
import pytest

from jaxsparse.compaction import checks
from jaxsparse.coupling.program import trace


@pytest.mark.parametrize(
    ("dtype", "allowed"),
    [
        ("float32", 256 * 2**-23),
        ("float16", 8 * 2**-10),
        ("bfloat16", 8 * 2**-7),
        ("float8_e4m3fn", 1 / 16),
    ],
)
def test_tolerance_is_below_the_outputs_in_every_dtype(
    dtype: str, allowed: float
) -> None:
    program = trace(lambda p, x: p * x.astype(dtype), jnp.ones(3, dtype), jnp.ones(3))
    assert checks.tolerance(program) == allowed


def test_an_output_that_is_a_tenth_larger_is_another_one_in_bfloat16() -> None:
    x = jnp.ones((2, 3), jnp.bfloat16)
    _, relative = checks.difference(lambda x: x, lambda x: x * 1.1, (x,))
    assert relative > checks.tolerance(trace(lambda p, x: p * x, x, x))


@pytest.mark.parametrize("special", [jnp.inf, -jnp.inf, jnp.nan])
def test_differences_beside_an_entry_that_is_not_finite_count(special: float) -> None:
    def first(x: Any) -> Any:
        return jnp.stack([x[:, 0], jnp.full(x.shape[0], special)])

    def second(x: Any) -> Any:
        return first(2 * x + 7)

    x = jnp.ones((2, 3))
    absolute, relative = checks.difference(first, second, (x,))
    assert 7 < absolute < 50
    assert relative > 1
    assert checks.difference(first, first, (x,)) == (0, 0)


@pytest.mark.parametrize("other", [jnp.inf, jnp.nan, 1.0])
def test_entries_that_are_not_finite_have_to_be_the_same(other: float) -> None:
    x = jnp.ones((2, 3))
    found = checks.difference(lambda x: x - jnp.inf, lambda x: x * 0 + other, (x,))
    assert found == (jnp.inf, jnp.inf)
