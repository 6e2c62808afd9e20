"""Numbers of levels and replicates that a user gives."""

from pathlib import Path
from typing import Any

import numpy as np

Number = int | np.integer[Any]  # as in a table of records


def is_whole(number: Any) -> bool:
    """Returns whether a value is an integer of Python or NumPy, and not a bool.

    Args:
      number: any value.
    """
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def one_of(level: Number | None, there: list[int], folder: Path) -> int:
    """Returns the requested level, or the last one.

    Args:
      level: number of pruning rounds; None selects the last of `there`.
      there: existing levels, increasing.
      folder: the run directory, for messages.

    Raises:
      TypeError: if `level` is not an integer.
      ValueError: if there are no levels, or not this one.
    """
    if level is not None and not is_whole(level):
        raise TypeError(f"level: expected a whole number or None, got {level!r}")
    if not there:
        raise ValueError(
            f"{folder}: no level has been trained to its end there, or its weights "
            "were deleted (config.run.keep_checkpoints); expected at least one; "
            "continue the run"
        )
    if level is not None and level not in there:
        raise ValueError(
            f"level: expected one of {there}, which are in {folder}, got {level}; "
            "others are not trained yet, or were deleted because of "
            "config.run.keep_checkpoints"
        )
    return there[-1] if level is None else int(level)
