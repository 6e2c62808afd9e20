"""Effects: tests of what measurements say about a claim.

Each function tests one effect in both directions and returns an `Effect`: `p` is the
p-value of a test whose null hypothesis is that the claim is false, and `p_against` of
one whose null hypothesis is that it is true. Both are needed, since a claim that is not
shown is not thereby refuted. Intervals have 90 % confidence, so that each of their ends
belongs to a one-sided test at 5 %. Values that are not finite, as of a seed that
diverged, show nothing: both p-values are 1.

Measurements of the same seed share initial weights and the order of the data, so most
comparisons are of differences seed by seed. Where a distribution over seeds is far from
normal, as with seeds that never learned, `exact` replaces the t-test by permutations.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

CONFIDENCE = 0.9
RESAMPLES = 9999
Values = Float[np.ndarray, "n"] | Sequence[float]


class Effect(NamedTuple):
    """A measured effect, tested for a claim and against it.

    Attributes:
      estimate: the effect.
      interval: its 90 % confidence interval; None if there is none. Where several
        effects are combined, estimate and interval are those of the least clear one
        where all must hold (`every`), of the clearest where one must (`some`).
      p: p-value under the hypothesis that the claim is false.
      p_against: p-value under the hypothesis that the claim is true.
      n: number of independent units, such as seeds, masks or networks.
      words: the measurements as text, with units.
      of: the tested quantity, with its unit, as "dense minus tickets, points".
    """

    estimate: float
    interval: tuple[float, float] | None
    p: float
    p_against: float
    n: int
    words: str = ""
    of: str = ""

    def said(self, words: str, of: str = "") -> "Effect":
        """Returns the effect with other words.

        Args:
          words: the measurements as text.
          of: the tested quantity; "" keeps its name.
        """
        return self._replace(words=words, of=of or self.of)

    def named(self, of: str) -> "Effect":
        """Returns the effect with the name of the tested quantity.

        Args:
          of: the name, with the unit.
        """
        return self._replace(of=of)

    def as_ratio(self) -> "Effect":
        """Returns the effect of a difference of logarithms as a ratio."""
        ends = self.interval and tuple(float(np.exp(end)) for end in self.interval)
        return self._replace(estimate=float(np.exp(self.estimate)), interval=ends)

    @property
    def summary(self) -> str:
        """The tested quantity and its interval, as in "ratio: 1.25 (1.2 to 1.31)"."""
        ends = self.interval and " ({} to {})".format(*map(_number, self.interval))
        name = f"{self.of}: " if self.of else ""
        return f"{name}{_number(self.estimate)}{ends or ''}"


def nothing(estimate: float, n: int, words: str, of: str = "") -> Effect:
    """Returns the effect of measurements that show nothing: both p-values are 1.

    Args:
      estimate: the effect, which may be NaN.
      n: number of independent units.
      words: the measurements as text.
      of: the tested quantity.
    """
    return Effect(estimate, None, 1.0, 1.0, n, words, of)


def above(values: Values, threshold: float = 0.0, *, exact: bool = False) -> Effect:
    """Tests whether a mean is above a threshold.

    Args:
      values: one for each unit, such as differences seed by seed; two or more.
      threshold: what the mean is compared with.
      exact: whether to flip the signs of the deviations from the threshold in all ways,
        or 9,999 random ones if there are more, and to bootstrap the interval
        (percentiles), in place of the t-test.
    """
    values = np.asarray(values, np.float64)
    mean, n = float(values.mean()), len(values)
    if n < 2 or not np.isfinite(values).all():
        return nothing(mean, n, spread(values))
    # Equal values have no standard error, and t-tests of them no meaning.
    if exact or _are_equal(values):
        p, against = (
            _flipped(values - threshold, side) for side in ("greater", "less")
        )
        return Effect(mean, _bootstrapped(values), p, against, n, spread(values))
    test = stats.ttest_1samp(values, threshold, alternative="greater")
    low = float(test.confidence_interval((1 + CONFIDENCE) / 2).low)
    p = float(test.pvalue)
    return Effect(mean, (low, 2 * mean - low), p, 1 - p, n, spread(values))


def below(values: Values, threshold: float = 0.0, *, exact: bool = False) -> Effect:
    """Tests whether a mean is below a threshold.

    Args:
      values: one for each unit; two or more.
      threshold: what the mean is compared with.
      exact: see `above`.
    """
    return opposite(above(values, threshold, exact=exact))


def opposite(effect: Effect) -> Effect:
    """Returns the effect for the contrary claim.

    Args:
      effect: an effect.
    """
    return effect._replace(p=effect.p_against, p_against=effect.p)


def higher(
    one: Values, other: Values, by: float = 0.0, *, exact: bool = False
) -> Effect:
    """Tests whether the mean of one group exceeds that of another, not in pairs.

    Args:
      one: one value for each unit; two or more.
      other: those of the other group.
      by: difference of the means that must be exceeded.
      exact: whether to exchange units between groups in all ways, or 9,999 random ones
        if there are more, in place of Welch's t-test. The interval is then a bootstrap
        (percentiles).
    """
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    n, gap = min(len(a), len(b)), float(a.mean() - b.mean())
    words = f"{spread(a)} against {spread(b)}"
    if n < 2 or not np.isfinite([gap, *a, *b]).all():
        return nothing(gap, n, words)
    if exact or (_are_equal(a) and _are_equal(b)):
        test = functools.partial(
            stats.permutation_test,
            (a - by, b),
            _gap,
            vectorized=True,
            n_resamples=RESAMPLES,
            rng=0,
        )
        p, against = (test(alternative=side).pvalue for side in ("greater", "less"))
        ends = stats.bootstrap(
            (a, b), _gap, confidence_level=CONFIDENCE, method="percentile", rng=0
        ).confidence_interval
        interval = (float(ends.low), float(ends.high))
        return Effect(gap, interval, float(p), float(against), n, words)
    test = functools.partial(stats.ttest_ind, a - by, b, equal_var=False)
    ends = test().confidence_interval(CONFIDENCE)
    p, against = (test(alternative=side).pvalue for side in ("greater", "less"))
    interval = (float(ends.low) + by, float(ends.high) + by)
    return Effect(gap, interval, float(p), float(against), n, words)


def higher_by_summary(
    one: tuple[float, float, int], other: tuple[float, float, int], by: float = 0.0
) -> Effect:
    """Tests as `higher` does where only means and deviations are known.

    Args:
      one: mean, sample standard deviation and number of units.
      other: those of the other group.
      by: difference of the means that must be exceeded.
    """
    (a, sa, na), (b, sb, nb) = one, other
    words = f"{a:.2f} ± {sa:.2f} against {b:.2f} ± {sb:.2f}"
    n = min(na, nb)
    if n < 2 or not (sa or sb) or not np.isfinite([a, sa, b, sb]).all():
        return nothing(a - b, n, words)
    error = np.hypot(sa / na**0.5, sb / nb**0.5)
    parts = (sa**2 / na, sb**2 / nb)
    free = sum(parts) ** 2 / (parts[0] ** 2 / (na - 1) + parts[1] ** 2 / (nb - 1))
    half = error * stats.t.ppf((1 + CONFIDENCE) / 2, free)
    p = float(stats.t.sf((a - by - b) / error, free))
    return Effect(a - b, (a - b - half, a - b + half), p, 1 - p, n, words)


def within(values: Values, margin: float) -> Effect:
    """Tests whether a mean is equivalent to 0: two one-sided tests against a margin.

    Args:
      values: one for each unit, such as differences seed by seed; two or more.
      margin: largest absolute mean that counts as the same; above 0.
    """
    sides = [above(values, -margin), below(values, margin)]
    # Against the claim, the mean lies beyond either end: Bonferroni over both.
    return sides[0]._replace(p=max(e.p for e in sides), p_against=_least(sides))


def every(*effects: Effect, words: str | None = None) -> Effect:
    """Combines effects into one claim that holds if all of them hold.

    The claim is shown if each part is (intersection-union test). It is refuted if one
    part is, with Bonferroni's correction for choosing it.

    Args:
      *effects: the parts.
      words: the measurements as text; None joins those of the parts.
    """
    if len(effects) == 1 and words is None:
        return effects[0]
    joined = "; ".join(e.words for e in effects if e.words) if words is None else words
    weakest = max(effects, key=lambda e: e.p)
    n = min(e.n for e in effects)
    return weakest._replace(p_against=_least(effects), n=n, words=joined)


def some(*effects: Effect, words: str | None = None) -> Effect:
    """Combines effects into one claim that holds if any of them holds.

    The claim is shown if one part is, with Bonferroni's correction for choosing it. It
    is refuted if each part is.

    Args:
      *effects: the parts.
      words: the measurements as text; None joins those of the parts.
    """
    return opposite(every(*map(opposite, effects), words=words))


def _least(effects: Sequence[Effect]) -> float:
    """Returns the smallest p-value against a part, corrected by Bonferroni."""
    return min(1.0, len(effects) * min(e.p_against for e in effects))


def pseudo_values(whole: float, without: Values) -> Float[np.ndarray, "n"]:
    """Returns the jackknife's pseudo-values of a measure of a group, as of an ensemble.

    They can be tested as if independent (Tukey 1958); their mean corrects the bias of
    first order.

    Args:
      whole: the measure of the group.
      without: the measure of the group without each of its members; two or more.
    """
    n = len(without)
    return n * whole - (n - 1) * np.asarray(without, np.float64)


def spread(values: Values, digits: int = 2) -> str:
    """Formats a mean and, for several values, the sample standard deviation.

    Args:
      values: one for each unit.
      digits: digits after the point.
    """
    sd = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{sd}"


def _number(value: float) -> str:
    """Formats a number with three digits, from 1,000 on without a fraction."""
    return f"{value:,.0f}" if 999.5 <= abs(value) < np.inf else f"{value:.3g}"


def _are_equal(values: np.ndarray) -> bool:
    """Returns whether units differ by rounding only."""
    return bool(np.ptp(values) <= 1e-9 * np.max(np.abs(values)))


def _flipped(values: np.ndarray, side: str) -> float:
    """Returns the p-value of all changes of sign, for one side."""
    mean = functools.partial(np.mean, axis=-1)
    test = stats.permutation_test(
        (values,),
        lambda x, axis=-1: mean(x),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        alternative=side,
        rng=0,
    )
    return float(test.pvalue)


def _bootstrapped(values: np.ndarray) -> tuple[float, float]:
    """Returns a percentile interval of the mean."""
    if _are_equal(values):
        return float(values.mean()), float(values.mean())
    ends = stats.bootstrap(
        (values,), np.mean, confidence_level=CONFIDENCE, method="percentile", rng=0
    ).confidence_interval
    return float(ends.low), float(ends.high)


def _gap(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.mean(a, axis=axis) - np.mean(b, axis=axis)
