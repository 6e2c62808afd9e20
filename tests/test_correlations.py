"""Rank correlations over variants: tests by slow code, and on made-up data."""

import itertools

import numpy as np
import pytest
from scipy import stats

from experiments.studies import correlations


def test_rank_correlation_within_seeds_by_slow_code() -> None:
    random = np.random.default_rng(3)
    x = random.normal(size=(3, 6))
    y = x + random.normal(size=(3, 6))
    each = [stats.spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)]
    effect = correlations.rank_correlation(x, y)
    assert effect.estimate == pytest.approx(np.mean(each))
    null = []
    for order in itertools.permutations(range(6)):
        moved = x[:, order]
        null.append(
            np.mean(
                [stats.spearmanr(a, b).statistic for a, b in zip(moved, y, strict=True)]
            )
        )
    exact = np.mean(np.array(null) >= effect.estimate - 1e-12)
    assert effect.p == pytest.approx(exact, abs=4 * np.sqrt(exact / 9999))


def test_nested_variants_are_permuted_together() -> None:
    # Within blocks ranks rise together, so that only six orders of blocks differ.
    x = np.arange(9.0)[None]
    effect = correlations.rank_correlation(x, x, blocks=[0, 0, 0, 1, 1, 1, 2, 2, 2])
    assert effect.n == 3
    assert effect.p == pytest.approx(1 / 6, abs=0.02)
    assert correlations.rank_correlation(x, x).p == pytest.approx(1e-4)


def test_the_stronger_of_two_correlations() -> None:
    random = np.random.default_rng(5)
    y = random.normal(size=(4, 20))
    near, far = y + 0.3 * random.normal(size=y.shape), random.normal(size=y.shape)
    assert correlations.stronger_correlation(near, far, y).p < 0.01
    assert correlations.stronger_correlation(far, near, y).p_against < 0.01
    # The sign of a correlation plays no part.
    assert correlations.stronger_correlation(-near, far, y).p < 0.01


def test_nested_variants_are_drawn_together() -> None:
    """Three blocks cannot show what nine independent variants would."""
    random = np.random.default_rng(7)
    y = np.repeat(random.normal(size=(4, 3)), 3, axis=1)
    y = y + 0.01 * random.normal(size=y.shape)
    near, far = y + 0.3 * random.normal(size=y.shape), random.normal(size=y.shape)
    blocks = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    alone = correlations.stronger_correlation(near, far, y)
    nested = correlations.stronger_correlation(near, far, y, blocks=blocks)
    assert (alone.n, nested.n) == (9, 3)
    assert nested.estimate == alone.estimate
    assert (nested.p, nested.p_against) == (1.0, 1.0)
    assert alone.p < 0.05
    # Every variant a block of its own is the default.
    each = correlations.stronger_correlation(near, far, y, blocks=range(9))
    assert each == alone


def test_correlations_of_noise_are_shown_in_one_of_twenty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(correlations, "RESAMPLES", 299)
    random, draws = np.random.default_rng(9), 600
    found = [
        correlations.rank_correlation(*random.normal(size=(2, 3, 6)))
        for _ in range(draws)
    ]
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)
    assert np.mean([effect.p < 0.05 for effect in found]) <= most
    assert np.mean([effect.p_against < 0.05 for effect in found]) <= most


def test_constant_measures_are_not_correlated() -> None:
    effect = correlations.rank_correlation(
        np.ones((2, 5)), np.arange(10.0).reshape(2, 5)
    )
    assert (effect.estimate, effect.p) == (0.0, 1.0)


def test_measures_that_are_not_finite_show_nothing() -> None:
    x = np.arange(12.0).reshape(2, 6)
    lost = np.where(x == 7, np.nan, x)
    assert correlations.rank_correlation(x, x).p < 0.05
    for found in (
        correlations.rank_correlation(x, lost),
        correlations.rank_correlation(lost, x, threshold=0.5),
        correlations.stronger_correlation(lost, x[:, ::-1], x),
        correlations.stronger_correlation(x, x[:, ::-1], lost),
    ):
        assert (found.p, found.p_against, found.interval) == (1.0, 1.0, None)
