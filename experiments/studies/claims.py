"""Claims of a paper, what must be seen for each, and whether it was.

A claim is reproduced if what it says is seen beyond the threshold that stands with it,
not reproduced if the opposite or nothing is seen, and unclear between, or with fewer
than `LEAST_SEEDS` seeds.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

Findings = dict[str, Any]
LEAST_SEEDS = 3
SIGNIFICANT = 0.05


class Seen(NamedTuple):
    """What the runs say about a claim.

    Attributes:
      ours: the numbers, in words.
      n: seeds they come from.
      holds: True, False, or None between.
    """

    ours: str
    n: int
    holds: bool | None


class Missing(Exception):
    """A run that a claim compares has not ended."""


class Claim(NamedTuple):
    """A claim of a paper.

    Attributes:
      name: short.
      statement: what the paper says.
      published: its numbers, in words.
      threshold: what must be seen.
      look: from all findings of a network to what is seen; raises `Missing`.
      written: "before" there were runs to compare, "amended" when some had been seen,
        or "after" the first measurement.
    """

    name: str
    statement: str
    published: str
    threshold: str
    look: Callable[[Findings], Seen]
    written: str = "before"


def judge(
    claims: Sequence[Claim], found: Findings, *, long_enough: bool = True
) -> list[dict[str, Any]]:
    """Says of each claim whether the findings bear it out.

    Args:
      claims: of a study.
      found: what the study measured.
      long_enough: False makes all that was measured unclear.
    """
    rows = []
    for claim in claims:
        try:
            seen = claim.look(found)
            enough = seen.n >= LEAST_SEEDS and long_enough
            words = {True: "reproduced", False: "not reproduced", None: "unclear"}
            row = seen._asdict() | {"verdict": words[seen.holds if enough else None]}
        except Missing:
            row = {"ours": "", "n": "", "verdict": "not measured"}
        row |= claim._asdict()
        rows.append({k: v for k, v in row.items() if k not in ("look", "holds")})
    return rows


def entries(part: Findings, *names: str) -> list[Any]:
    """Takes entries of a part; raises `Missing` if one is not there."""
    missing = [name for name in names if name not in part]
    if missing:
        raise Missing(f"{missing} is not measured")
    return [part[name] for name in names]


def of_segments(points: int, examples: int) -> str:
    """Says how finely segments between children were looked at."""
    trained = f"the first {examples:,}" if examples else "all"
    return (
        f"Errors between children are taken at {points} points on the segment (30 in "
        f"Frankle et al. 2020), those of training on {trained} examples."
    )


def not_here(found: Findings) -> list[str]:
    """Says which runs have not ended, by the "missing" of the findings."""
    late = [f"{name} ({why})" for name, why in found.get("missing", {}).items()]
    return [f"Not here: {', '.join(late)}."] if late else []


def by_p(p: float, right_way: bool) -> bool | None:
    """Judges a one-sided test: True if significant, False if the wrong way."""
    if right_way and p < SIGNIFICANT:
        return True
    return None if right_way else False


def are_alike(values: np.ndarray) -> bool:
    """Says whether seeds differ by no more than rounding, so that no test is due."""
    return bool(np.ptp(values) <= 1e-9 * np.max(np.abs(values)))


def above(values: np.ndarray, threshold: float = 0.0) -> bool | None:
    """Judges whether a mean over seeds is above a threshold (t test, one-sided).

    Args:
      values: one a seed, such as differences of pairs.
      threshold: what the mean is compared with.

    Returns:
      True if above, significantly; False if not above; else None.
    """
    values = np.asarray(values, np.float64)
    higher = bool(values.mean() > threshold)
    if len(values) < 2:
        return None
    if are_alike(values):
        return higher
    p = stats.ttest_1samp(values, threshold, alternative="greater").pvalue
    return by_p(float(p), higher)


def spread(values: np.ndarray, digits: int = 2) -> str:
    """Words a mean and, of several, the sample standard deviation."""
    sd = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{sd}"
