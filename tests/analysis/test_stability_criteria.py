"""Verdicts on segments: closed forms, slow loops, and where thresholds lie."""

from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis.extra import numpy as arrays

from jaxsparse.analysis import mode_connectivity
from jaxsparse.analysis.mode_connectivity import criteria, example_criteria

EMPTY = np.zeros(0)
EVEN = np.array([0.0331, 0.0248, 0.0021])  # 0.02 on average, but for rounding
UNIT = np.array(mode_connectivity.UNIT_ALPHAS)


@st.composite
def sweeps(draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """Errors [a p] at points in any order, some beyond the ends."""
    between = draw(st.lists(st.floats(-0.5, 1.5).map(lambda x: round(x, 3))))
    alphas = np.array(draw(st.permutations([*dict.fromkeys([0.0, 1.0, *between])])))
    shape = (len(alphas), draw(st.integers(1, 4)))
    return alphas, draw(arrays.arrays(np.float64, shape, elements=st.floats(0, 1)))


@hypothesis.given(sweeps())
def test_instability_and_increase_equal_a_slow_loop(sweep: Any) -> None:
    alphas, error = sweep
    unstable = criteria.instability(error, alphas)
    increase = criteria.max_increase(error, alphas)
    assert unstable.shape == increase.shape == error.shape[1:]
    for p in range(error.shape[1]):
        at = {a: e for a, e in zip(alphas.tolist(), error[:, p], strict=True)}
        highest = max(e for a, e in at.items() if 0 <= a <= 1)
        assert unstable[p] == highest - (at[0.0] + at[1.0]) / 2
        assert increase[p] == highest - max(at[0.0], at[1.0])
        assert increase[p] >= 0
        apart = abs(at[0.0] - at[1.0])
        assert abs(unstable[p] - increase[p] - apart / 2) < 1e-15
    # The line through the ends lies between the two.
    line = mode_connectivity.barrier(error, alphas)
    apart = 2 * (unstable - increase)
    assert np.all(increase - 1e-15 <= line) and np.all(line <= increase + apart + 1e-15)


def test_a_monotone_rise_is_no_increase_and_half_the_difference_unstable() -> None:
    for values in (0.1 + 0.2 * UNIT, 0.1 + 0.2 * UNIT[::-1] ** 3):
        assert criteria.max_increase(values, UNIT) == 0.0
        np.testing.assert_allclose(criteria.instability(values, UNIT), 0.1, rtol=1e-12)


def test_losses_may_be_infinite_inside_but_not_at_the_ends() -> None:
    alphas = (0.0, 0.5, 1.0)
    wall = np.array([[1.0, np.inf, 1.0], [np.inf, 5.0, 1.0], [1.0, 2.0, np.nan]]).T
    found = criteria.max_increase(wall, alphas)
    assert found[0] == np.inf and np.isnan(found[1]) and np.isnan(found[2])


@pytest.mark.parametrize(
    ("fraction", "stable"),
    [(0.0, True), (0.0199, True), (0.02, False), (0.0201, False), (0.9, False)],
)
def test_stable_is_a_mean_below_two_percent(fraction: float, stable: bool) -> None:
    apart = min(fraction, 0.01)
    pairs = np.array([[fraction - apart, fraction], [fraction, fraction + apart]])
    verdict = criteria.classify_stability(pairs)
    assert verdict.stable is stable and verdict.matching is None and verdict.n == 4
    np.testing.assert_allclose(verdict.mean, fraction, atol=1e-15)
    np.testing.assert_allclose(verdict.sd, np.sqrt(2 * apart**2 / 3), rtol=1e-9)


@hypothesis.given(st.integers(0, 10_000), st.integers(-200, 200))
def test_matching_counts_examples_exactly(right: int, fewer: int) -> None:
    left = min(max(right - fewer, 0), 10_000)
    verdict = criteria.classify_stability(
        np.array([0.5]), accuracy=left / 10_000, dense_accuracy=right / 10_000
    )
    assert verdict.matching is (right - left < 20)
    assert np.isnan(verdict.sd) and verdict.stable is False


def test_rounding_decides_nothing_at_the_thresholds() -> None:
    rounded = 0
    for right in range(20, 10_001, 9):
        accuracy, dense = (right - 20) / 10_000, right / 10_000
        rounded += dense - accuracy < criteria.MATCHING_BELOW
        verdict = criteria.classify_stability(
            EVEN, accuracy=accuracy, dense_accuracy=dense
        )
        assert verdict.matching is False and verdict.stable is False
    assert rounded > 50  # without care these would have matched
    assert np.mean(EVEN) < criteria.STABLE_BELOW


def test_accuracies_are_averaged_over_their_own_seeds() -> None:
    pairs = np.array([0.01], np.float32)
    accuracy, dense = np.array([0.90, 0.92]), np.array([0.912, 0.911, 0.910])
    verdict = criteria.classify_stability(
        pairs, accuracy=accuracy, dense_accuracy=dense
    )
    assert verdict.matching is True  # 0.001 below
    worse = criteria.classify_stability(
        pairs, accuracy=accuracy - 0.001, dense_accuracy=dense
    )
    assert worse.matching is False and worse.stable is True


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (
            lambda: criteria.instability(np.array([1.0, 50.0]), (0, 1)),
            "error: expected .*got 50",
        ),
        (
            lambda: criteria.instability(np.array([0.1, np.nan]), (0, 1)),
            "error: expected .*got",
        ),
        (
            lambda: criteria.instability(np.array([0.1, 0.2]), (0, 0.9)),
            "expected 0 and",
        ),
        (
            lambda: criteria.max_increase(np.ones(3), (0, 1)),
            "values: expected .*got shape",
        ),
        (lambda: criteria.max_increase(np.ones(2), (0.5, 1)), "expected 0 and 1"),
        (
            lambda: criteria.classify_stability(np.array([])),
            "instabilities: expected .*got none",
        ),
        (
            lambda: criteria.classify_stability(np.array([1.5])),
            "instabilities: expected .*got 1.5",
        ),
        (
            lambda: criteria.classify_stability(np.array([-0.1])),
            "instabilities: expected .*got -0.1",
        ),
        (
            lambda: criteria.classify_stability(np.ones(1), accuracy=0.9),
            "^accuracy: expected both",
        ),
        (
            lambda: criteria.classify_stability(np.ones(1), dense_accuracy=0.9),
            "dense_accuracy: expected both",
        ),
        (
            lambda: criteria.classify_stability(
                np.ones(1), accuracy=91.0, dense_accuracy=0.9
            ),
            "^accuracy: expected fractions.*got 91.0",
        ),
        (
            lambda: criteria.classify_stability(
                np.ones(1), accuracy=0.9, dense_accuracy=np.ones(0)
            ),
            "dense_accuracy: expected .*got none",
        ),
        (
            lambda: example_criteria.example_barrier(np.ones((2, 3)), (0, 1)),
            "expected 0.5",
        ),
        (
            lambda: example_criteria.example_barrier(
                np.ones((2, 3)), (0, 1), at="mean"
            ),
            "at: expected .*got 'mean'",
        ),
    ],
)
def test_bad_arguments_are_refused(call: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        call()


def test_barriers_of_examples_equal_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    alphas = np.array([1.0, 0.25, -0.2, 0.5, 0.75, 0.0, 1.2])
    loss = rng.exponential(size=(7, 40)).astype(np.float32)
    middle = example_criteria.example_barrier(loss, alphas)
    highest = example_criteria.example_barrier(loss, alphas, at="maximum")
    assert middle.dtype == highest.dtype == np.float64
    for i, each in enumerate(loss.T.astype(np.float64)):
        first, last = each[5], each[0]
        assert middle[i] == each[3] - (0.5 * first + 0.5 * last)
        over = [
            v - ((1 - a) * first + a * last)
            for a, v in zip(alphas, each, strict=True)
            if 0 <= a <= 1
        ]
        assert highest[i] == max(over) >= 0
    assert middle.min() < 0 < middle.max() and np.all(highest >= middle)
    total = mode_connectivity.barrier(loss.mean(axis=1, dtype=np.float64), alphas)
    assert highest.mean() > total


def test_three_points_of_a_double_well_are_enough() -> None:
    def well(params: Any, batch_stats: Any, batch: Any) -> Any:
        each = batch * (params**2 - 1) ** 2
        return each, each < 0.5

    found = mode_connectivity.along_path(
        well,
        jnp.float32(-1.0),
        jnp.float32(1.0),
        examples=np.array([1.0, 3.0, 0.25], np.float32),
        batch_size=2,
        alphas=(0.0, 0.5, 1.0),
    )
    barriers = example_criteria.example_barrier(found.example_loss, found.alphas)
    np.testing.assert_array_equal(barriers, [1.0, 3.0, 0.25])
    assert example_criteria.connected_fraction(barriers, 0.5) == 1 / 3
    assert criteria.instability(found.error, found.alphas) == 2 / 3


def test_the_threshold_is_included() -> None:
    barriers = np.array([-1.0, 0.0, 0.5, 0.5000001, 7.0])
    for threshold, wanted in ((0.5, 0.6), (0.0, 0.4), (-2.0, 0.0), (np.inf, 1.0)):
        assert example_criteria.connected_fraction(barriers, threshold) == wanted


@hypothesis.given(
    st.lists(st.tuples(st.floats(-9, 9), st.integers(0, 4)), min_size=1, max_size=40),
    st.floats(-9, 9),
)
def test_classes_equal_a_slow_loop_and_may_be_empty(pairs: Any, limit: float) -> None:
    barriers, labels = (np.array(part) for part in zip(*pairs, strict=True))
    found = example_criteria.by_class(barriers, labels, 6, limit)
    assert found.count.sum() == len(pairs) and found.count[5] == 0
    for k in range(6):
        mine = [b for b, label in pairs if label == k]
        assert found.count[k] == len(mine)
        if not mine:
            assert np.isnan(found.mean[k]) and np.isnan(found.connected[k])
            continue
        np.testing.assert_allclose(found.mean[k], np.mean(mine), atol=1e-12)
        assert found.connected[k] == sum(b <= limit for b in mine) / len(mine)
    whole = np.nansum(found.connected * found.count) / len(pairs)
    np.testing.assert_allclose(
        whole, example_criteria.connected_fraction(barriers, limit)
    )


@pytest.mark.parametrize(
    ("barriers", "threshold", "word"),
    [
        ([0.0, np.nan, 1.0], 0.5, "barriers: expected .*got nan for example 1 of 3"),
        ([0.0, 1.0, np.inf], 0.5, "barriers: expected .*got inf for example 2 of 3"),
        ([], 0.5, "barriers: expected .*got none"),
        ([0.0], np.nan, "threshold: expected .*got nan"),
    ],
)
def test_what_is_not_finite_is_refused(
    barriers: Any, threshold: float, word: str
) -> None:
    barriers = np.array(barriers, np.float64)
    labels = np.zeros(len(barriers), np.int32)
    with pytest.raises(ValueError, match=word):
        example_criteria.connected_fraction(barriers, threshold)
    with pytest.raises(ValueError, match=word):
        example_criteria.by_class(barriers, labels, 2, threshold)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range_are_refused(label: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 2, got {label} for example 1"):
        example_criteria.by_class(np.zeros(2), np.array([0, label]), 3, 0.5)
