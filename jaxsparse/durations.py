"""Schedules: how long and how many, as integers on the host.

Durations become optimiser steps, and fractions to prune become tables of counts, in
exact arithmetic and before anything is traced. `distributions` divides a count among
layers.
"""

import math
import numbers
import operator
import re
from fractions import Fraction
from typing import Any

FORMS = "'500step', '500it', '2ep', '0.5ep', '3ep200it' or '10%'"
_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(
    rf"(?:{_NUMBER}ep)?(?:(\d+)(?:it|steps?))?|{_NUMBER}%", flags=re.ASCII
)


def to_steps(duration: str, *, steps_per_epoch: int, total: int | None = None) -> int:
    """Turns a duration into optimiser steps.

    Args:
      duration: steps ("500step", "500steps", "500it"), epochs ("2ep", "0.5ep"), both
        ("3ep200it"), or a fraction of the whole run ("10%").
      steps_per_epoch: optimiser steps in one epoch, 1 or more.
      total: steps of the whole run, where there is one to take a fraction of.

    Returns:
      Steps, rounded to the nearest integer, halves up.

    Raises:
      ValueError: if the duration has none of these forms, or is a fraction of a run
        of unknown length; or if a number is out of range.
      TypeError: if a number is no integer.

    Examples:
      >>> to_steps("3ep200it", steps_per_epoch=391)
      1373
    """
    steps_per_epoch = _check_count(steps_per_epoch, field="steps_per_epoch", least=1)
    total = None if total is None else _check_count(total, field="total")
    if not isinstance(duration, str):
        raise TypeError(f"duration: got {duration!r}; wanted a form such as {FORMS}")
    match = _DURATION.fullmatch(duration)
    if not duration or match is None:
        raise ValueError(f"duration: got {duration!r}; wanted a form such as {FORMS}")
    epochs, steps, percent = match.groups(default="0")
    if duration.endswith("%") and total is None:
        raise ValueError(
            f"duration: got {duration!r} of a run of unknown length; pass `total`, or "
            f"say it in steps or epochs; forms are {FORMS}"
        )
    exact = (
        Fraction(epochs) * steps_per_epoch
        + int(steps)
        + Fraction(percent) / 100 * (total or 0)
    )
    return _round(exact)


def kept_per_level(total: int, *, fraction: float, levels: int) -> list[int]:
    """Counts the weights left after each level of iterative pruning.

    Level L keeps total (1 - fraction)^L, each rounded on its own, so that roundings do
    not add up.

    Args:
      total: weights before the first level.
      fraction: fraction of those left that one level removes, in [0, 1), read as the
        decimal it prints as.
      levels: how many times to prune, 0 or more.

    Returns:
      levels + 1 counts, never increasing, the first of them `total`; halves are
      rounded up.

    Raises:
      ValueError: if the fraction is not in [0, 1), or there are fewer than 0 or more
        than 10,000 levels, or fewer than 0 weights.
      TypeError: if `total` or `levels` is no integer.

    Examples:
      >>> kept_per_level(266_200, fraction=0.2, levels=3)
      [266200, 212960, 170368, 136294]
    """
    _check_fraction(fraction)
    total = _check_count(total, field="total")
    levels = _check_count(levels, field="levels", most=10_000)
    left = 1 - Fraction(str(fraction))
    return [_round(total * left**level) for level in range(levels + 1)]


def open_lth_kept(kept: int, *, fraction: float) -> int:
    """Counts the weights left after one level of open_lth.

    Its threshold is the entry numbered ceil(fraction kept), from 0, of the sorted
    magnitudes, and it keeps what is strictly above: one weight more goes than the
    fraction says. With `select.globally(..., ties="drop")` this gives open_lth's masks.

    Args:
      kept: weights before, over *all* prunable leaves, those that are not pruned
        included.
      fraction: fraction to remove, in [0, 1).

    Returns:
      kept - (ceil(fraction kept) + 1), where equal magnitudes do not remove more. The
      product is in float64, as theirs is.

    Raises:
      ValueError: if the fraction is not in [0, 1) or nothing would be left to keep.
      TypeError: if `kept` is no integer.

    References:
      Frankle et al. open_lth, `pruning/sparse_global.py`.
    """
    _check_fraction(fraction)
    kept = _check_count(kept, field="kept")
    left = kept - (math.ceil(fraction * kept) + 1)
    if left < 0:
        raise ValueError(
            f"kept: got {kept}, of which open_lth removes {kept - left}; wanted more "
            "weights or a smaller fraction"
        )
    return left


def _check_count(
    value: Any, *, field: str, least: int = 0, most: int | None = None
) -> int:
    """Returns a count as a Python integer, or refuses it by the name of its field."""
    try:
        count = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = None
    if count is None:
        raise TypeError(f"{field}: got {value!r}; expected an integer")
    if count < least or (most is not None and count > most):
        wanted = f"{least} or more" if most is None else f"one from {least} to {most:,}"
        raise ValueError(f"{field}: got {count}; expected {wanted}")
    return count


def _check_fraction(fraction: float) -> None:
    if not isinstance(fraction, numbers.Real):
        raise TypeError(f"fraction: got {fraction!r}; wanted a number in [0, 1)")
    if not 0 <= fraction < 1:
        raise ValueError(
            f"fraction: got {fraction}; wanted the part of the weights that one level "
            "removes, in [0, 1)"
        )


def _round(exact: Fraction) -> int:
    """Rounds to the nearest integer, halves up."""
    return math.floor(exact + Fraction(1, 2))
