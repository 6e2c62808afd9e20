"""Checks what scores return against the prunable weights."""

from typing import Any

import jax
import numpy as np

from jaxsparse import masks as masks_lib
from jaxsparse import tree
from jaxsparse.select import inputs
from jaxsparse.types import Masks, Scores


def fit(scores: Any, masks: Masks, name: str, *, field: str) -> Scores:
    """Arranges scores in the nesting of the masks.

    Args:
      scores: what the score returned; concrete or traced.
      masks: masks of the prunable weights, of one replicate.
      name: name of the score, for messages.
      field: config field that names the score, for messages.

    Returns:
      The scores, None where the masks are None.

    Raises:
      ValueError: if a leaf is missing, unexpected, of another shape, or not an array of
        real numbers; the message names the field, the score and the leaf.
    """
    where = f"config.{field} {name!r}"
    fitted = tree.match_structure(
        scores,
        masks,
        fields=(where, "the prunable weights"),
        same_leaves=True,
        remedy="return one score per weight, and None for leaves without masks",
    )
    for leaf, values in tree.named_leaves(fitted).items():
        try:
            inputs.check_score(leaf, values)
        except TypeError as error:
            raise ValueError(f"{where}: {error}") from None
    return fitted


def check_finite(scores: Scores, kept: Masks, name: str, level: int) -> None:
    """Raises ValueError if the score of an active weight is NaN or infinite.

    Args:
      scores: scores of one replicate.
      kept: boolean masks of the active weights.
      name: name of the score, for the message.
      level: level whose masks are chosen, for the message.
    """
    bad = masks_lib.tree_map(
        lambda mask, leaf: int((~np.isfinite(leaf) & np.asarray(mask)).sum()),
        kept,
        jax.device_get(scores),
    )
    for leaf, count in zip(masks_lib.names(kept), jax.tree.leaves(bad), strict=True):
        if count:
            raise ValueError(
                f"config.lottery.score: expected finite scores of {name!r} at level "
                f"{level}, got {count} that are not in {leaf}; did training diverge, "
                "or does the loss overflow?"
            )
