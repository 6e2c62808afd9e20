"""Which labels are wrong."""

from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxsparse.data.data_pruning import noise as noise_lib

pytestmark = pytest.mark.keys_used_once


@st.composite
def cases(draw: Any) -> tuple[np.ndarray, dict[str, Any]]:
    classes = draw(st.integers(2, 6))
    labels = draw(st.lists(st.integers(0, classes - 1), max_size=25))
    dtype = draw(st.sampled_from([np.int32, np.int64, np.int8]))
    said = {"classes": classes, "seed": draw(st.integers(0, 99))}
    return np.array(labels, dtype), said


FRACTIONS = st.floats(0, 1) | st.sampled_from([0.0, 0.1, 0.5, 1.0])


@pytest.mark.parametrize("how", noise_lib.HOW)
@hypothesis.given(case=cases(), fraction=FRACTIONS)
def test_exactly_the_chosen_change(how: str, case: Any, fraction: float) -> None:
    labels, said = case
    before = labels.copy()
    got = noise_lib.corrupt(labels, fraction=fraction, how=how, **said)
    assert len(got.rows) == round(fraction * len(labels))
    assert np.all(np.diff(got.rows) > 0)
    assert set(got.rows.tolist()) <= set(range(len(labels)))
    assert got.labels.dtype == labels.dtype and got.labels.shape == labels.shape
    others = np.setdiff1d(np.arange(len(labels)), got.rows)
    np.testing.assert_array_equal(got.labels[others], before[others])
    np.testing.assert_array_equal(labels, before)
    if how == "permute":
        np.testing.assert_array_equal(np.sort(got.labels), np.sort(before))
    else:
        assert np.all(got.labels[got.rows] != before[got.rows])
        assert np.all(got.labels < said["classes"])


@pytest.mark.parametrize("how", noise_lib.HOW)
@hypothesis.given(case=cases(), fractions=st.tuples(FRACTIONS, FRACTIONS))
def test_more_noise_contains_less(how: str, case: Any, fractions: Any) -> None:
    labels, said = case
    less, more = (
        noise_lib.corrupt(labels, fraction=fraction, how=how, **said)
        for fraction in sorted(fractions)
    )
    assert set(less.rows.tolist()) <= set(more.rows.tolist())
    if how == "uniform":
        np.testing.assert_array_equal(less.labels[less.rows], more.labels[less.rows])


@pytest.mark.parametrize(
    ("fraction", "chosen"), [(0.1, 1), (0.25, 2), (0.29, 3), (0.3, 3), (0.35, 4)]
)
def test_counts_are_rounded_and_halves_go_to_even(fraction: float, chosen: int) -> None:
    labels = np.arange(10)
    got = noise_lib.corrupt(
        labels, fraction=fraction, classes=10, seed=0, how="uniform"
    )
    assert len(got.rows) == chosen


def test_wrong_labels_are_all_other_classes_alike() -> None:
    labels = np.repeat(np.arange(5), 4000)
    got = noise_lib.corrupt(labels, fraction=1.0, classes=5, seed=1, how="uniform")
    table = np.zeros((5, 5), int)
    np.add.at(table, (labels, got.labels), 1)
    assert np.all(np.diag(table) == 0)
    # 1000 each, with standard deviation 27.4; 20 of them within 5 deviations.
    off = table[~np.eye(5, dtype=bool)]
    assert np.all(np.abs(off - 1000) < 5 * 27.4) and len(set(off)) > 1


def test_permuted_labels_are_a_random_permutation() -> None:
    labels = np.repeat(np.arange(5), 4000)
    got = noise_lib.corrupt(labels, fraction=0.5, classes=5, seed=1, how="permute")
    same = np.count_nonzero(got.labels[got.rows] == labels[got.rows])
    # One in five of 10,000 keeps its label, with standard deviation 40.
    assert abs(same - 2000) < 5 * 40
    np.testing.assert_array_equal(np.bincount(got.labels), np.full(5, 4000))


@pytest.mark.parametrize("how", noise_lib.HOW)
def test_draws_are_of_the_seed_alone(how: str) -> None:
    labels = np.arange(1000) % 10

    def draw(seed: int) -> noise_lib.Corrupted:
        return noise_lib.corrupt(labels, fraction=0.3, classes=10, seed=seed, how=how)

    for one, same in zip(draw(7), draw(7), strict=True):
        np.testing.assert_array_equal(one, same)
    for one, other in zip(draw(7), draw(8), strict=True):
        assert np.any(one != other)


def test_draws_are_pinned() -> None:
    """They are part of results: labels 0 to 4, twice; half of them; seed 3."""
    labels = np.arange(10) % 5
    drawn = {
        how: noise_lib.corrupt(labels, fraction=0.5, classes=5, seed=3, how=how)
        for how in noise_lib.HOW
    }
    assert drawn["permute"].rows.tolist() == drawn["uniform"].rows.tolist()
    assert drawn["permute"].rows.tolist() == [0, 1, 2, 6, 9]
    assert drawn["permute"].labels.tolist() == [4, 1, 0, 3, 4, 0, 2, 2, 3, 1]
    assert drawn["uniform"].labels.tolist() == [2, 4, 4, 3, 4, 0, 4, 2, 3, 1]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"how": "wrong"}, "how: expected .*got 'wrong'"),
        ({"fraction": -0.1}, "fraction: expected .*got -0.1"),
        ({"fraction": 1.1}, "fraction: expected .*got 1.1"),
        ({"fraction": float("nan")}, "fraction: expected .*got nan"),
        ({"classes": 1}, "classes: expected at least 2.*got 1"),
        ({"classes": 0, "how": "permute"}, "classes: expected at least 1.*got 0"),
        ({"classes": 2}, "labels: expected 0 to 1, got 0 to 2"),
        ({"labels": np.array([-1, 0])}, "labels: expected 0 to 2, got -1 to 0"),
    ],
)
def test_impossible_noise_is_refused(changes: Any, match: str) -> None:
    said = {"labels": np.array([0, 1, 2]), "fraction": 0.5, "classes": 3, "seed": 0}
    with pytest.raises(ValueError, match=match):
        noise_lib.corrupt(**({"how": "uniform"} | said | changes))
