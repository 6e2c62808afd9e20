"""Summarizes a stage: one record per replicate, made from its evaluations."""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from jaxsparse import masks as masks_lib
from jaxsparse import replicates
from jaxsparse.metrics_log import Record
from jaxsparse.types import Masks

log = logging.getLogger(__name__)


def early_stop(evaluations: Sequence[Record]) -> Record | None:
    """Returns the evaluation with the first minimum of the validation loss.

    Args:
      evaluations: records of kind "eval" of one stage and replicate, in order of steps.

    Returns:
      The record of that evaluation; None without validation data.

    References:
      Frankle and Carbin, The Lottery Ticket Hypothesis, 2019, arXiv:1803.03635, section
      2: the iteration of minimum validation loss is a proxy for the speed of learning.
    """
    losses = [row["validation_loss"] for row in evaluations]
    # A loss is None without validation data or, read from JSON, if it was not finite.
    if None in losses or not losses:
        return None
    return evaluations[int(np.argmin(losses))]


def describe(rows: Sequence[Record]) -> str:
    """Formats the test accuracy of the last evaluation, averaged over replicates.

    Args:
      rows: records of one stage, with at least one of kind "eval".
    """
    evaluations = [row for row in rows if row["kind"] == "eval"]
    last = [row for row in evaluations if row["step"] == evaluations[-1]["step"]]
    accuracy = float(np.mean([row["test_accuracy"] for row in last]))
    return f"test accuracy {accuracy:.2%}"


def warn_of_empty_layers(rows: Sequence[Record], *, stage: str) -> None:
    """Warns of layers in which some replicate has no active weights.

    Args:
      rows: records of kind "level".
      stage: name of the stage in the warning.
    """
    # A dict as an ordered set: several replicates can have the same empty layers.
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
    masks: Masks, count_effective: Callable[[Masks], int] | None, *, stage: str
) -> None:
    """Warns of masks without any weight on a path from input to output.

    Args:
      masks: boolean masks of all replicates [r ...].
      count_effective: counts, for the masks of one replicate, the effective weights:
        those on a path from input to output. None skips the check.
      stage: name of the stage in the warning.
    """
    if count_effective is None:
        return
    each = enumerate(replicates.split(masks))
    cut = [r for r, mask in each if not count_effective(mask)]
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
    count_effective: Callable[[Masks], int] | None = None,
    dynamic_masks: bool = False,
    anneal_end_step: int = 0,
) -> list[Record]:
    """Summarizes a stage.

    Args:
      rows: all records of the stage.
      masks: boolean masks at the end of the stage [r ...].
      start_step: training step at which the stage began.
      count_effective: counts, for the masks of one replicate, the effective weights:
        those on a path from input to output. None skips the count.
      dynamic_masks: whether masks were updated within the stage. An earlier evaluation
        may then be of a denser network, so there is no early stop.
      anneal_end_step: training step at which ToST has annealed its soft activations and
        ghost skips away; earlier evaluations are not eligible for the early stop.

    Returns:
      A record of kind "level" per replicate: the number of active weights, in total and
      by layer, the last evaluation, and the one that early stopping selects.
    """
    evaluations = [row for row in rows if row["kind"] == "eval"]
    summed = []
    for replicate, mask in enumerate(replicates.split(masks)):
        mine = [row for row in evaluations if row["replicate"] == replicate]
        kept, total = masks_lib.num_active(mask), masks_lib.size(mask)
        # Before this step evaluations are of a network with the temporary parts of
        # ToST.
        settled_in = [row for row in mine if row["step"] >= anneal_end_step]
        best = None if dynamic_masks else early_stop(settled_in)
        summed.append(
            mine[-1]
            | {
                "kind": "level",
                "start_step": start_step,
                "kept": kept,
                "total": total,
                "density": kept / total,
                "effective_params": count_effective and count_effective(mask),
                "layers": {k: list(v) for k, v in masks_lib.layer_counts(mask).items()},
                "early_stop_step": best and best["step"],
                "early_stop_validation_loss": best and best["validation_loss"],
                "early_stop_test_accuracy": best and best["test_accuracy"],
            }
        )
    return summed
