"""Fades: where they begin, that they end at exactly nothing, and that they trace."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsparse.tost import fading

FADING = [form for form in fading.FORMS if form != "constant"]


@pytest.mark.parametrize("form", FADING)
@settings(deadline=None)
@given(until=st.integers(1, 200_000), share=st.floats(0, 1), beyond=st.integers(0, 99))
def test_a_fade_begins_at_one_and_ends_at_exactly_nothing(
    form: str, until: int, share: float, beyond: int
) -> None:
    assert fading.fade(0, until=until, form=form) == 1.0
    assert fading.fade(until + beyond, until=until, form=form) == 0.0
    between = int(share * (until - 1))
    left = float(fading.fade(between, until=until, form=form))
    assert 0.0 <= left <= 1.0
    assert float(fading.fade(between + 1, until=until, form=form)) <= left


@pytest.mark.parametrize("step", [0, 1, 7, 15])
def test_forms_are_their_formulas(step: int) -> None:
    share = step / 16
    found = {form: fading.fade(step, until=16, form=form) for form in FADING}
    np.testing.assert_allclose(found["linear"], 1 - share, rtol=1e-6)
    np.testing.assert_allclose(
        found["cosine"], (1 + math.cos(math.pi * share)) / 2, rtol=1e-5
    )
    assert found["step"] == 1.0


@pytest.mark.parametrize("step", [0, 5, 10**9])
def test_as_released_nothing_fades(step: int) -> None:
    assert fading.fade(step, until=5, form="constant") == 1.0


def test_no_update_is_no_ghost() -> None:
    for form in FADING:
        assert fading.fade(0, until=0, form=form) == 0.0
    assert fading.sharpen(0, until=0) == math.inf


def test_sharpness_grows_by_a_factor_until_it_is_infinite() -> None:
    betas = [float(fading.sharpen(n, until=4, least=2.0, most=32.0)) for n in range(6)]
    np.testing.assert_allclose(betas[:4], [2.0, 4.0, 8.0, 16.0], rtol=1e-6)
    assert betas[4:] == [math.inf, math.inf]


def test_one_trace_serves_a_whole_fade() -> None:
    traces = []

    @jax.jit
    def both(clock: jax.Array) -> tuple[jax.Array, jax.Array]:
        traces.append(clock)
        return fading.fade(clock, until=3), fading.sharpen(clock, until=3)

    found = [both(jnp.int32(clock)) for clock in range(5)]
    assert len(traces) == 1
    for clock, (left, beta) in enumerate(found):
        np.testing.assert_allclose(left, fading.fade(clock, until=3), rtol=1e-6)
        np.testing.assert_allclose(beta, fading.sharpen(clock, until=3), rtol=1e-6)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="form: got 'slow'; wanted one of"):
        fading.fade(0, until=1, form="slow")
    with pytest.raises(ValueError, match="until: got -1; wanted"):
        fading.fade(0, until=-1)
    with pytest.raises(ValueError, match="least: got 0.0; wanted"):
        fading.sharpen(0, until=1, least=0.0)
    with pytest.raises(ValueError, match="least: got 3.0 with most 2.0"):
        fading.sharpen(0, until=1, least=3.0, most=2.0)
