"""Claims of a paper, what must be observed for each, and whether it was.

A claim is reproduced if the measurements show what it says, beyond its threshold. It is
not reproduced if they show the opposite or no effect. In between, or with fewer than
`MIN_SEEDS` seeds, it is unclear.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

Findings = dict[str, Any]
MIN_SEEDS = 3
SIGNIFICANT = 0.05


class Evidence(NamedTuple):
    """The measurements for a claim.

    Attributes:
      ours: the numbers, as text.
      n: number of seeds.
      holds: True or False; None in between.
    """

    ours: str
    n: int
    holds: bool | None


class NotMeasured(Exception):
    """Raised if a run that a claim compares has not ended."""


class Claim(NamedTuple):
    """A claim of a paper.

    Attributes:
      name: a few words.
      statement: what the paper says.
      published: its numbers, as text.
      threshold: what must be observed.
      evaluate: returns the evidence in all measurements of a network; raises
        `NotMeasured`.
      written: when the threshold was written: "before" there were runs to compare,
        "amended" when some had been seen, or "after" the first measurement.
    """

    name: str
    statement: str
    published: str
    threshold: str
    evaluate: Callable[[Findings], Evidence]
    written: str = "before"


def judge(
    claims: Sequence[Claim], found: Findings, *, long_enough: bool = True
) -> list[dict[str, Any]]:
    """Judges each claim by the measurements.

    Args:
      claims: claims of a study.
      found: measurements of the study on a network.
      long_enough: whether the runs are long enough for a verdict; otherwise all that
        was measured is unclear.

    Returns:
      One row for each claim, with "verdict", the evidence and the fields of the claim.
    """
    words = {True: "reproduced", False: "not reproduced", None: "unclear"}
    rows = []
    for claim in claims:
        row: dict[str, Any] = {"ours": "", "n": "", "verdict": "not measured"}
        try:
            evidence = claim.evaluate(found)
            enough = evidence.n >= MIN_SEEDS and long_enough
            row = {"ours": evidence.ours, "n": evidence.n}
            row["verdict"] = words[evidence.holds if enough else None]
        except NotMeasured:
            pass
        row |= claim._asdict()
        del row["evaluate"]
        rows.append(row)
    return rows


def entries(part: Findings, *names: str) -> list[Any]:
    """Returns entries of a part of the measurements.

    Args:
      part: entries by name.
      *names: names of the entries.

    Raises:
      NotMeasured: if an entry is missing.
    """
    missing = [name for name in names if name not in part]
    if missing:
        raise NotMeasured(f"{missing} is not measured")
    return [part[name] for name in names]


def describe_interpolations(points: int, examples: int) -> str:
    """Describes the resolution at which copies were interpolated.

    Args:
      points: points on the interpolation.
      examples: training examples; 0 for all.
    """
    trained = f"the first {examples:,}" if examples else "all"
    return (
        f"Errors between copies are measured at {points} points of the interpolation "
        f"(30 in Frankle et al. 2020), those of training on {trained} examples."
    )


def unfinished(found: Findings) -> list[str]:
    """Lists the runs that have not ended, from "missing" in the measurements."""
    late = [f"{name} ({why})" for name, why in found.get("missing", {}).items()]
    return [f"Not included: {', '.join(late)}."] if late else []


def by_p(p: float, expected: bool) -> bool | None:
    """Judges a one-sided test: True if significant.

    Args:
      p: p-value of the test.
      expected: whether the effect has the expected sign; False if not.
    """
    if expected and p < SIGNIFICANT:
        return True
    return None if expected else False


def are_equal(values: np.ndarray) -> bool:
    """Returns whether seeds differ by rounding only, so that no test is possible."""
    return bool(np.ptp(values) <= 1e-9 * np.max(np.abs(values)))


def above(values: np.ndarray, threshold: float = 0.0) -> bool | None:
    """Judges whether a mean over seeds is above a threshold (t-test, one-sided).

    Args:
      values: one for each seed, such as differences of pairs.
      threshold: value that the mean is compared with.

    Returns:
      True if it is significantly above, False if it is not above, None otherwise.
    """
    values = np.asarray(values, np.float64)
    higher = bool(values.mean() > threshold)
    if len(values) < 2:
        return None
    if are_equal(values):
        return higher
    p = stats.ttest_1samp(values, threshold, alternative="greater").pvalue
    return by_p(float(p), higher)


def spread(values: np.ndarray, digits: int = 2) -> str:
    """Formats a mean and, for several values, the sample standard deviation.

    Args:
      values: one for each seed.
      digits: digits after the point.
    """
    sd = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{sd}"
