import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsparse.analysis.hessian import eigenvalues

VALUES = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=30)


@given(VALUES)
def test_the_summary_is_that_of_a_loop(values: list[float]) -> None:
    found = eigenvalues.summarize(values)
    size = max(abs(value) for value in values)
    limit = np.finfo(np.float32).eps * np.sqrt(len(values)) * size
    negative = [value for value in values if value < -limit]
    total = sum(abs(value) for value in values)
    assert all(type(value) is float for value in found.values())
    assert found["negatives"] == len(negative)
    assert found["negative_fraction"] == len(negative) / len(values)
    assert found["positives"] == sum(value > limit for value in values)
    assert (found["max"], found["min"]) == (max(values), min(values))
    np.testing.assert_allclose(found["trace"], sum(values), atol=1e-9)
    mass = sum(abs(value) for value in negative) / total if total else 0.0
    np.testing.assert_allclose(found["negative_mass"], mass, atol=1e-12)


@given(VALUES, st.floats(1e-3, 1e3))
def test_counts_do_not_depend_on_the_size_of_the_loss(
    values: list[float], factor: float
) -> None:
    # Away from the threshold, where rounding may decide.
    values = [value for value in values if value == 0 or abs(value) > 1] or [1.0]
    was = eigenvalues.summarize(values)
    now = eigenvalues.summarize([factor * value for value in values])
    for name in ("negatives", "positives", "negative_fraction"):
        assert was[name] == now[name]


def test_rounding_below_the_threshold_is_no_direction_down() -> None:
    noise = 1e-7 * np.random.default_rng(0).uniform(-1, 1, 1000)
    found = eigenvalues.summarize(np.append(noise, 1.0))
    assert found["negatives"] == 0.0 and found["negative_mass"] == 0.0
    fine = eigenvalues.summarize(np.append(noise, 1.0), dtype=np.float64)
    assert fine["negatives"] == float(np.sum(noise < 0)) > 400
    strict = eigenvalues.summarize([-1.0, -0.5, 2.0], threshold=0.7)
    assert strict["negatives"] == 1.0 and strict["threshold"] == 0.7


def test_a_comparison_counts_new_negatives_by_one_threshold() -> None:
    found = eigenvalues.compare([-1.0, 0.5, 2.0], [-3.0, -1.0, 4.0, 5.0])
    assert found["new_negatives"] == 1.0
    assert found["max_change"] == 3.0
    assert found["min_change"] == -2.0
    assert found["trace_change"] == 3.5
    assert found["negative_fraction_change"] == 0.5 - 1 / 3
    np.testing.assert_allclose(found["negative_mass_change"], 4 / 13 - 1 / 3.5)
    # The largest eigenvalue shrinks; rounding is not a new negative for that.
    assert eigenvalues.compare([0.0, 1e3], [-1e-5, 1e-2])["new_negatives"] == 0.0
    assert eigenvalues.summarize([-1e-5, 1e-2])["negatives"] == 1.0


@pytest.mark.parametrize("values", [[], [[1.0]], [np.nan], [1.0, -np.inf]])
def test_what_is_no_spectrum_is_refused(values: list) -> None:
    with pytest.raises(ValueError, match="eigenvalues: expected .*got shape"):
        eigenvalues.summarize(values)
