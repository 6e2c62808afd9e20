"""The comparison of outputs tells rounding from another function."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsparse.compaction import checks
from jaxsparse.coupling.program import trace


def difference(first: Callable, second: Callable, example: tuple) -> tuple:
    """Compares two functions of inputs without parameters."""
    pair = [(lambda _, *x, run=run: run(*x), {}) for run in (first, second)]
    return checks.difference(*pair, example)


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


def test_networks_of_integers_are_not_rounded() -> None:
    integers = jnp.arange(3)
    assert checks.tolerance(trace(lambda p, x: p * x, integers, integers)) == 0


def test_an_output_that_is_a_tenth_larger_is_another_one_in_bfloat16() -> None:
    x = jnp.ones((2, 3), jnp.bfloat16)
    _, relative = difference(lambda x: x, lambda x: x * 1.1, (x,))
    assert relative > checks.tolerance(trace(lambda p, x: p * x, x, x))


@pytest.mark.parametrize("special", [jnp.inf, -jnp.inf, jnp.nan])
def test_differences_beside_an_entry_that_is_not_finite_count(special: float) -> None:
    def first(x: Any) -> Any:
        return jnp.stack([x[:, 0], jnp.full(x.shape[0], special)])

    def second(x: Any) -> Any:
        return first(2 * x + 7)

    x = jnp.ones((2, 3))
    absolute, relative = difference(first, second, (x,))
    assert 7 < absolute < 50
    assert relative > 1
    assert difference(first, first, (x,)) == (0, 0)


@pytest.mark.parametrize("other", [jnp.inf, jnp.nan, 1.0])
def test_entries_that_are_not_finite_have_to_be_the_same(other: float) -> None:
    x = jnp.ones((2, 3))
    found = difference(lambda x: x - jnp.inf, lambda x: x * 0 + other, (x,))
    assert found == (jnp.inf, jnp.inf)


@pytest.mark.parametrize(
    "other",
    [
        lambda x: [x],
        lambda x: (x, x),
        lambda x: (x[:1],),
        lambda x: (x.astype(jnp.bfloat16),),
    ],
)
def test_outputs_of_another_form_are_others(other: Callable) -> None:
    x = jnp.ones((2, 3))
    assert difference(lambda x: (x,), other, (x,)) == (np.inf, np.inf)


def test_every_network_is_compared_with_its_own_parameters() -> None:
    """They are arguments of the compiled programs, and no constants of them."""
    x, seen = jnp.ones((2, 3)), []

    def apply(p: Any, x: Any) -> Any:
        seen.append(isinstance(p, jax.core.Tracer))
        return p * x

    pair = (apply, jnp.array(2.0)), (apply, jnp.array(3.0))
    absolute, relative = checks.difference(*pair, (x,))
    assert relative == pytest.approx(0.5)
    assert absolute > 0.5
    assert all(seen)


def test_integers_have_to_be_equal() -> None:
    x = jnp.arange(5)
    assert difference(lambda x: 2 * x, lambda x: x + x, (x,)) == (0, 0)
    found = difference(lambda x: x, lambda x: jnp.minimum(x, 3), (x,))
    assert found == (np.inf, np.inf)


def test_networks_of_one_batch_size_are_compared_for_it() -> None:
    def apply(x: Any) -> Any:
        return x.reshape(4, 2)

    assert difference(apply, apply, (jnp.ones((4, 2)),)) == (0, 0)
    with pytest.raises(TypeError, match="cannot reshape"):
        difference(apply, apply, (jnp.ones((3, 2)),))


def test_inputs_are_drawn_from_the_range_of_the_example() -> None:
    key = jax.random.key(3)
    shape, kept = jax.ShapeDtypeStruct((60,), jnp.int32), jnp.ones(60, bool)
    example = key, jnp.array([[2, 5]]), shape, kept, X
    same, tokens, unknown, kept, x = checks.random_inputs(example, 1, None)
    assert same is key
    assert set(np.ravel(tokens)) <= {2, 3, 4, 5}
    assert set(unknown.tolist()) == {0, 1}
    assert set(kept.tolist()) == {False, True}
    assert x.shape == (2, 3) and not jnp.array_equal(x, X)


@pytest.mark.parametrize(
    ("example", "sizes"),
    [
        (((2, 3),), [None, 1, 5]),
        (((1, 3), (1,)), [None, 2, 5]),
        (((5, 3),), [None, 1, 3]),
        (((2, 3), (3, 3)), [None]),
        (((2, 3), ()), [None]),
        ((), [None]),
    ],
)
def test_batch_sizes_are_tried_where_all_inputs_share_one(
    example: tuple, sizes: list
) -> None:
    shapes = tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in example)
    assert checks.batch_sizes(shapes) == sizes


X = jnp.ones((2, 3))


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (lambda p, x: x.mean() * 6.0, ""),
        (lambda p, x: jnp.tanh(x), ""),  # other operations are compared by outputs
        (
            lambda p, x: x.sum() / 7.0 * 6.0,
            "'div' by 6, a number computed from a width",
        ),
    ],
)
def test_numbers_of_a_program_may_not_change(after: Callable, reason: str) -> None:
    programs = [trace(f, {}, X) for f in (lambda p, x: x.sum() / 6.0 * 6.0, after)]
    assert checks.difference_of_programs(*programs).startswith(reason)
    assert bool(checks.difference_of_programs(*programs)) == bool(reason)
