"""Correlations: tests of rank correlations over the variants of a study, within seeds.

Seeds share initial weights and data, so they are not independent: coefficients are
computed within each seed and averaged, and variants are permuted or drawn in the same
way for all seeds.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from experiments.studies.effects import CONFIDENCE, RESAMPLES, Effect, nothing

MIN_BLOCKS = 5  # for a bootstrap
_RANK = "rank correlation"
_STRONGER = "difference of absolute rank correlations"


def rank_correlation(
    x: Float[np.ndarray, "seeds variants"],
    y: Float[np.ndarray, "seeds variants"],
    *,
    blocks: Sequence[int] | None = None,
    threshold: float = 0.0,
) -> Effect:
    """Tests whether two measures of variants are correlated in rank, within seeds.

    Spearman's coefficient is computed within each seed, over variants, and averaged
    over seeds. Variants are permuted in the same way for all seeds, which share
    initial weights and data and so are not independent.

    Args:
      x: one measure of every seed and variant.
      y: the other.
      blocks: for each variant the number of its block: variants that share data, as
        nested subsets do, are permuted together, blocks of equal size with one another.
        None makes each variant a block of its own.
      threshold: coefficient that must be exceeded. Only 0 is tested by permutations;
        other thresholds by Fisher's transformation, with n blocks.

    Returns:
      The effect, positive for rising ranks; n is the number of blocks. Values that are
      not finite show nothing: both p-values are 1. The interval is
      Fisher's for n blocks, with the factor 1.06 in the variance of ranks (Fieller et
      al. 1957).
    """
    x, y = np.atleast_2d(x), np.atleast_2d(y)
    blocks = np.arange(x.shape[1]) if blocks is None else np.asarray(blocks)
    n = len(np.unique(blocks))
    groups = "" if n == x.shape[1] else f" in {n} groups"
    words = f"{x.shape[1]} variants{groups}, mean of {len(x)} seeds"
    if not (np.isfinite(x).all() and np.isfinite(y).all()):  # they have no ranks
        return nothing(np.nan, n, words, _RANK)
    rows = [stats.rankdata(one, axis=1) for one in (x, y)]
    observed = float(_mean_correlation(*rows))
    error = np.sqrt(1.06 / max(n - 3, 1))
    z = np.arctanh(np.clip(observed, -1 + 1e-9, 1 - 1e-9))
    half = error * stats.norm.ppf((1 + CONFIDENCE) / 2)
    interval = (float(np.tanh(z - half)), float(np.tanh(z + half)))
    if threshold:
        shift = (z - np.arctanh(threshold)) / error
        p, against = float(stats.norm.sf(shift)), float(stats.norm.cdf(shift))
        return Effect(observed, interval, p, against, n, words, _RANK)
    null = _mean_correlation(rows[0][:, _permuted(blocks)], rows[1][:, None])
    # A tolerance, because equal arrangements differ by rounding.
    p = (1 + np.sum(null >= observed - 1e-12)) / (1 + RESAMPLES)
    against = (1 + np.sum(null <= observed + 1e-12)) / (1 + RESAMPLES)
    return Effect(observed, interval, float(p), float(against), n, words, _RANK)


def stronger_correlation(
    one: Float[np.ndarray, "seeds variants"],
    other: Float[np.ndarray, "seeds variants"],
    y: Float[np.ndarray, "seeds variants"],
    *,
    blocks: Sequence[int] | None = None,
) -> Effect:
    """Tests whether one measure is correlated with a third more strongly than another.

    The absolute values of the mean coefficients are compared by a bootstrap over blocks
    of variants, which keeps the dependence of the two. With fewer than `MIN_BLOCKS`, a
    bootstrap shows nothing, and both p-values are 1.

    Args:
      one: the measure of every seed and variant that should be more correlated.
      other: the other measure.
      y: the measure both are correlated with.
      blocks: for each variant the number of its block, as in `rank_correlation`. Blocks
        are drawn as a whole.

    Returns:
      The effect; n is the number of blocks. Values that are not finite show nothing.
    """
    arrays = [np.atleast_2d(each) for each in (one, other, y)]
    variants = arrays[0].shape[1]
    blocks = np.arange(variants) if blocks is None else np.asarray(blocks)
    members = [np.flatnonzero(blocks == name) for name in np.unique(blocks)]
    n = len(members)
    words = f"{variants} variants in {n} groups"
    if not all(np.isfinite(each).all() for each in arrays):
        return nothing(np.nan, n, words, _STRONGER)

    def gaps(chosen: Int[np.ndarray, "r variants"]) -> Float[np.ndarray, "r"]:
        a, b, c = (stats.rankdata(each[:, chosen], axis=-1) for each in arrays)
        return np.abs(_mean_correlation(a, c)) - np.abs(_mean_correlation(b, c))

    random = np.random.default_rng(0)
    draws = random.integers(len(members), size=(RESAMPLES, len(members)))
    by_size: dict[int, list[np.ndarray]] = {}
    for draw in draws:
        chosen = np.concatenate([members[i] for i in draw])
        by_size.setdefault(len(chosen), []).append(chosen)
    drawn = np.concatenate([gaps(np.stack(each)) for each in by_size.values()])
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    p, against = (
        float((1 + np.sum(which)) / (1 + RESAMPLES))
        for which in (drawn <= 0, drawn >= 0)
    )
    observed = float(gaps(np.arange(variants)[None])[0])
    if n < MIN_BLOCKS:
        p = against = 1.0
    interval = (float(low), float(high))
    return Effect(observed, interval, p, against, n, words, _STRONGER)


def _mean_correlation(
    x: Float[np.ndarray, "seeds *r variants"], y: Float[np.ndarray, "seeds *r variants"]
) -> Float[np.ndarray, "*r"]:
    """Correlates over variants and averages over seeds; constant values yield 0."""
    x, y = (one - one.mean(axis=-1, keepdims=True) for one in (x, y))
    scale = np.sqrt(np.sum(x**2, axis=-1) * np.sum(y**2, axis=-1))
    products = np.sum(x * y, axis=-1)
    each = np.divide(products, scale, where=scale > 0, out=np.zeros_like(products))
    return each.mean(axis=0)


def _permuted(blocks: np.ndarray) -> Int[np.ndarray, "r variants"]:
    """Draws orders of variants that exchange whole blocks of equal size."""
    members = [np.flatnonzero(blocks == name) for name in np.unique(blocks)]
    by_size = [
        np.stack([each for each in members if len(each) == size])
        for size in sorted({len(each) for each in members})
    ]
    random = np.random.default_rng(0)
    orders = np.empty((RESAMPLES, len(blocks)), np.intp)
    for order in orders:
        for rows in by_size:
            order[rows] = random.permutation(rows)
    return orders
