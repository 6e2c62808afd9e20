"""Fades: where they begin, that they end at exactly nothing, and that they trace."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsparse.tost import annealing

FADING = [form for form in annealing.FORMS if form != "constant"]


@pytest.mark.parametrize("form", FADING)
@settings(max_examples=20)
@given(until=st.integers(1, 200_000), share=st.floats(0, 1), beyond=st.integers(0, 99))
def test_a_fade_begins_at_one_and_ends_at_exactly_nothing(
    form: str, until: int, share: float, beyond: int
) -> None:
    assert annealing.anneal(0, end=until, form=form) == 1.0
    assert annealing.anneal(until + beyond, end=until, form=form) == 0.0
    between = int(share * (until - 1))
    left = float(annealing.anneal(between, end=until, form=form))
    assert 0.0 <= left <= 1.0
    assert float(annealing.anneal(between + 1, end=until, form=form)) <= left


@pytest.mark.parametrize("step", [0, 1, 7, 15])
def test_forms_are_their_formulas(step: int) -> None:
    share = step / 16
    found = {form: annealing.anneal(step, end=16, form=form) for form in FADING}
    np.testing.assert_allclose(found["linear"], 1 - share, rtol=1e-6)
    np.testing.assert_allclose(
        found["cosine"], (1 + math.cos(math.pi * share)) / 2, rtol=1e-5
    )
    assert found["step"] == 1.0


@pytest.mark.parametrize("step", [0, 5, 10**9])
def test_as_released_nothing_fades(step: int) -> None:
    assert annealing.anneal(step, end=5, form="constant") == 1.0


def test_no_update_is_no_ghost() -> None:
    for form in FADING:
        assert annealing.anneal(0, end=0, form=form) == 0.0
    assert annealing.sharpen(0, end=0) == math.inf


def test_sharpness_grows_by_a_factor_until_it_is_infinite() -> None:
    betas = [
        float(annealing.sharpen(n, end=4, initial=2.0, final=32.0)) for n in range(6)
    ]
    np.testing.assert_allclose(betas[:4], [2.0, 4.0, 8.0, 16.0], rtol=1e-6)
    assert betas[4:] == [math.inf, math.inf]


def test_one_trace_serves_a_whole_fade() -> None:
    traces = []

    @jax.jit
    def both(clock: jax.Array) -> tuple[jax.Array, jax.Array]:
        traces.append(clock)
        return annealing.anneal(clock, end=3), annealing.sharpen(clock, end=3)

    found = [both(jnp.int32(clock)) for clock in range(5)]
    assert len(traces) == 1
    for clock, (left, beta) in enumerate(found):
        np.testing.assert_allclose(left, annealing.anneal(clock, end=3), rtol=1e-6)
        np.testing.assert_allclose(beta, annealing.sharpen(clock, end=3), rtol=1e-6)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="form: expected one of .*got 'slow'"):
        annealing.anneal(0, end=1, form="slow")
    with pytest.raises(ValueError, match="end: expected .*got -1"):
        annealing.anneal(0, end=-1)
    with pytest.raises(ValueError, match="initial: expected .*got 0.0"):
        annealing.sharpen(0, end=1, initial=0.0)
    with pytest.raises(ValueError, match="initial: expected .*final=2.0, got 3.0"):
        annealing.sharpen(0, end=1, initial=3.0, final=2.0)
