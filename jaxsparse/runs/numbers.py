"""Levels, replicates and variants that a user asks for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsparse import multihost, replicates
from jaxsparse.stages import TICKET

Number = int | np.integer[Any]  # as in a table of records


def is_whole(number: Any) -> bool:
    """Returns whether a value is an integer of Python or NumPy, and not a bool.

    Args:
      number: any value.
    """
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def one_of(
    level: Number | None, there: list[int], folder: Path, variant: str = TICKET
) -> int:
    """Returns the requested level, or the last one.

    Args:
      level: number of pruning rounds; None selects the last of `there`.
      there: existing levels, increasing.
      folder: the run directory, for messages.
      variant: the variant whose levels exist, for messages.

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
        what = "" if variant == TICKET else f" of variant {variant!r}"
        raise ValueError(
            f"level: expected one of {there}{what}, which are in {folder}, got "
            f"{level}; others are not trained yet, or were deleted because of "
            "config.run.keep_checkpoints"
        )
    return there[-1] if level is None else int(level)


def check_variant(variant: str, there: Sequence[str], folder: Path) -> None:
    """Checks that a run has a variant.

    Args:
      variant: "ticket", or the name of a control.
      there: variants with trained weights.
      folder: the run directory, for messages.

    Raises:
      ValueError: if it does not.
    """
    if variant != TICKET and variant not in there:
        raise ValueError(
            f"variant: expected one of {list(there)}, which are in {folder}, got "
            f"{variant!r}; others are not trained (config.lottery.controls), or were "
            "deleted because of config.run.keep_checkpoints"
        )


def check_replicate(replicate: Number | None, count: int) -> None:
    """Checks that a replicate exists.

    Args:
      replicate: number of the replicate, counted from 0; None for all.
      count: number of replicates of the run.

    Raises:
      TypeError: if it is not an integer.
      ValueError: if it does not exist.
    """
    if replicate is None:
        return
    if not is_whole(replicate):
        raise TypeError(
            f"replicate: expected a whole number or None, got {replicate!r}"
        )
    if not 0 <= replicate < count:
        raise ValueError(
            f"replicate: expected a number in [0, {count}), or None for all, got "
            f"{replicate}"
        )


def of_replicate(tree: Any, replicate: Number | None) -> Any:
    """Selects a replicate of a tree [r ...], copied to the default device.

    Args:
      tree: arrays with a leading replicate axis, possibly on several devices.
      replicate: number of the replicate; None keeps all.
    """
    near = jax.tree.map(jnp.asarray, multihost.to_host(tree))
    if replicate is None:
        return near
    return replicates.take(near, int(replicate))
