"""What a stage came to: one record a replicate, made from its evaluations."""

import logging
from collections.abc import Callable, Sequence

import jax
import numpy as np

from jaxsparse import masks as masks_lib
from jaxsparse.metrics_log import Record
from jaxsparse.types import Masks

log = logging.getLogger(__name__)


def early_stop(evaluations: Sequence[Record]) -> Record | None:
    """Returns the evaluation with the first minimum of the validation loss.

    Args:
      evaluations: records of kind "eval" of one stage and replicate, in order.

    Returns:
      That record; None without validation data.

    References:
      Frankle and Carbin, The Lottery Ticket Hypothesis, 2019, arXiv:1803.03635,
      section 2: the iteration of minimum validation loss proxies speed of learning.
    """
    losses = [row["validation_loss"] for row in evaluations]
    if None in losses or not losses:
        return None
    return evaluations[int(np.argmin(losses))]


def describe(rows: Sequence[Record]) -> str:
    """Words the last evaluation of a stage, averaged over replicates."""
    evaluations = [row for row in rows if row["kind"] == "eval"]
    last = [row for row in evaluations if row["step"] == evaluations[-1]["step"]]
    accuracy = float(np.mean([row["test_accuracy"] for row in last]))
    return f"test accuracy {accuracy:.2%}"


def warn_of_empty_layers(rows: Sequence[Record], *, stage: str) -> None:
    """Warns by name of layers of which a stage kept no weight in some replicate.

    Args:
      rows: records of kind "level".
      stage: what to call the stage.
    """
    empty = {
        name: None
        for row in rows
        for name, (kept, total) in row["layers"].items()
        if total and not kept
    }
    if empty:
        log.warning(
            "%s: no weight is left in %s, so that nothing passes these layers; set "
            "min_layer_density of config.sparse or config.lottery, keep them dense, or "
            "choose a lower sparsity",
            stage,
            list(empty),
        )


def warn_of_no_paths(
    masks: Masks, live: Callable[[Masks], int] | None, *, stage: str
) -> None:
    """Warns of masks that leave no weight on a path from input to output.

    Args:
      masks: of each replicate [r ...].
      live: as for `level_records`.
      stage: what to call the masks' stage.
    """
    if live is None:
        return
    count = len(jax.tree.leaves(masks)[0])
    each = (jax.tree.map(lambda leaf, r=r: leaf[r], masks) for r in range(count))
    cut = [r for r, mask in enumerate(each) if not live(mask)]
    if cut:
        log.warning(
            "%s: in replicates %s no weight is on a path from the input to the output, "
            "so that nothing can be learned; choose a lower sparsity, another score or "
            "distribution, or set min_layer_density",
            *(stage, cut),
        )


def level_records(
    rows: Sequence[Record],
    *,
    masks: Masks,
    start_step: int,
    live: Callable[[Masks], int] | None = None,
    dynamic_masks: bool = False,
    anneal_end_step: int = 0,
) -> list[Record]:
    """Sums a stage up.

    Args:
      rows: all records of the stage.
      masks: masks it ended with [r ...].
      start_step: clock when it began, in updates.
      live: masks of one replicate to how many of its weights lie on a path from input
        to output; None not to count them.
      dynamic_masks: whether masks changed within the stage. An earlier evaluation may
        then be of a denser network, and there is no early stop.
      anneal_end_step: clock before which evaluations were of a network with ghosts,
        which no early stop chooses.

    Returns:
      A record of kind "level" for each replicate: weights kept, in all and by layer,
      the last evaluation, and the one that early stopping would have chosen.
    """
    evaluations = [row for row in rows if row["kind"] == "eval"]
    replicates = 1 + max(row["replicate"] for row in evaluations)
    summed = []
    for replicate in range(replicates):
        mine = [row for row in evaluations if row["replicate"] == replicate]
        mask = jax.tree.map(lambda leaf, r=replicate: leaf[r], masks)
        kept, total = masks_lib.num_active(mask), masks_lib.size(mask)
        settled_in = [row for row in mine if row["step"] >= anneal_end_step]
        best = None if dynamic_masks else early_stop(settled_in)
        summed.append(
            mine[-1]
            | {
                "kind": "level",
                "start_step": start_step,
                "kept": kept,
                "total": total,
                "weights_remaining": kept / total,
                "live": live and live(mask),
                "layers": {k: list(v) for k, v in masks_lib.layer_counts(mask).items()},
                "early_stop_step": best and best["step"],
                "early_stop_validation_loss": best and best["validation_loss"],
                "early_stop_test_accuracy": best and best["test_accuracy"],
            }
        )
    return summed
