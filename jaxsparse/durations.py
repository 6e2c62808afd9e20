"""Durations and pruning levels as integers, computed on the host.

Durations are converted to optimizer steps, and a fraction to prune per level to a table
of counts, in exact arithmetic and before anything is traced. `distributions` divides a
count among layers.
"""

import math
import numbers
import operator
import re
from fractions import Fraction
from typing import Any

FORMS = "'500step', '500it', '2ep', '0.5ep', '3ep200it' or '10%'"
_NUMBER = r"(\d+(?:\.\d+)?)"
# ASCII only: by default \d also matches the digits of other scripts.
_DURATION = re.compile(
    rf"(?:{_NUMBER}ep)?(?:(\d+)(?:it|steps?))?|{_NUMBER}%", flags=re.ASCII
)


def to_steps(duration: str, *, steps_per_epoch: int, total: int | None = None) -> int:
    """Converts a duration to optimizer steps.

    Args:
      duration: steps ("500step", "500steps", "500it"), epochs ("2ep", "0.5ep"), both
        ("3ep200it"), or a percentage of the whole run ("10%").
      steps_per_epoch: optimizer steps in one epoch, 1 or more.
      total: optimizer steps of the whole run, 0 or more, for percentages; None if
        unknown.

    Returns:
      Optimizer steps, rounded to the nearest integer; halves are rounded up.

    Raises:
      ValueError: if the duration has none of these forms, it is a percentage and
        `total` is None, or a number is out of range.
      TypeError: if the duration is not a string or a number is not an integer.

    Examples:
      >>> to_steps("3ep200it", steps_per_epoch=391)
      1373
    """
    steps_per_epoch = _check_count(steps_per_epoch, field="steps_per_epoch", minimum=1)
    total = None if total is None else _check_count(total, field="total")
    if not isinstance(duration, str):
        raise TypeError(f"duration: expected a form such as {FORMS}, got {duration!r}")
    match = _DURATION.fullmatch(duration)
    # Both parts of the pattern are optional, so it also matches the empty string.
    if not duration or match is None:
        raise ValueError(f"duration: expected a form such as {FORMS}, got {duration!r}")
    epochs, steps, percent = match.groups(default="0")
    if duration.endswith("%") and total is None:
        raise ValueError(
            "duration: expected steps or epochs, since the length of the run is "
            f"unknown, got {duration!r}; pass `total`, or a form such as '500step' or "
            "'2ep'"
        )
    # Fractions of the text are exact, so "0.1ep" and "10%" have no float error.
    exact = (
        Fraction(epochs) * steps_per_epoch
        + int(steps)
        + Fraction(percent) / 100 * (total or 0)
    )
    return _round(exact)


def kept_per_level(total: int, *, fraction: float, levels: int) -> list[int]:
    """Computes the number of weights left after each level of iterative pruning.

    Level L keeps total (1 - fraction)^L weights. Each level is rounded separately, so
    that rounding errors do not accumulate.

    Args:
      total: number of weights before the first level, 0 or more.
      fraction: fraction of the remaining weights that one level removes, in [0, 1). It
        is read as the decimal number that it is printed as.
      levels: number of levels, from 0 to 10,000.

    Returns:
      levels + 1 counts, which never increase; the first is `total`. Halves are rounded
      up.

    Raises:
      ValueError: if an argument is out of range.
      TypeError: if `total` or `levels` is not an integer, or `fraction` is not a
        number.

    Examples:
      >>> kept_per_level(266_200, fraction=0.2, levels=3)
      [266200, 212960, 170368, 136294]
    """
    _check_fraction(fraction)
    total = _check_count(total, field="total")
    levels = _check_count(levels, field="levels", maximum=10_000)
    # `Fraction(str(x))` is the decimal number as written, unlike `Fraction(x)`.
    density = 1 - Fraction(str(fraction))
    return [_round(total * density**level) for level in range(levels + 1)]


def open_lth_kept(kept: int, *, fraction: float) -> int:
    """Computes the number of weights left after one level of pruning in open_lth.

    The threshold of open_lth is the entry with index ceil(fraction kept), counted from
    0, of the sorted magnitudes, and it keeps only magnitudes strictly above. It thus
    removes one weight more than ceil(fraction kept). With this count,
    `select.top_k_global(..., ties="drop")` gives the masks of open_lth.

    Args:
      kept: number of weights before the level, 0 or more, over *all* prunable leaves,
        including those that are excluded from pruning.
      fraction: fraction to remove, in [0, 1).

    Returns:
      kept - (ceil(fraction kept) + 1), unless equal magnitudes at the threshold remove
      more. As in open_lth, the product is computed in float64.

    Raises:
      ValueError: if the fraction is not in [0, 1), or more weights would be removed
        than there are.
      TypeError: if `kept` is not an integer or `fraction` is not a number.

    References:
      Frankle et al. open_lth, `pruning/sparse_global.py`.
    """
    _check_fraction(fraction)
    kept = _check_count(kept, field="kept")
    removed = math.ceil(fraction * kept) + 1
    if removed > kept:
        raise ValueError(
            f"kept: expected at least the {removed} weights that open_lth removes, got "
            f"{kept}; use a smaller fraction"
        )
    return kept - removed


def _check_count(
    value: Any, *, field: str, minimum: int = 0, maximum: int | None = None
) -> int:
    """Returns a count as a Python integer, checked for its type and range.

    Args:
      value: the count.
      field: name of the argument in the message.
      minimum: the smallest value allowed.
      maximum: the largest value allowed; None for no upper limit.

    Raises:
      ValueError: if the count is out of range.
      TypeError: if it is not an integer.
    """
    try:
        count = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = None
    if count is None:
        raise TypeError(f"{field}: expected an integer, got {value!r}")
    if count < minimum or (maximum is not None and count > maximum):
        limits = (
            f"of at least {minimum}"
            if maximum is None
            else f"from {minimum} to {maximum:,}"
        )
        raise ValueError(f"{field}: expected an integer {limits}, got {count}")
    return count


def _check_fraction(fraction: float) -> None:
    """Raises if a fraction is not a number in [0, 1)."""
    if not isinstance(fraction, numbers.Real):
        raise TypeError(f"fraction: expected a number in [0, 1), got {fraction!r}")
    if not 0 <= fraction < 1:
        raise ValueError(
            "fraction: expected the fraction of the weights that one level removes, in "
            f"[0, 1), got {fraction}"
        )


def _round(exact: Fraction) -> int:
    """Rounds to the nearest integer; halves are rounded up."""
    return math.floor(exact + Fraction(1, 2))
