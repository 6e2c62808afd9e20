"""Checks that the sizes and durations of a config fit its data and network."""

import logging

from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import distributions
from jaxsparse import masks as masks_lib
from jaxsparse.data.dataset import Dataset
from jaxsparse.factory import components
from jaxsparse.factory import scores as scores_lib
from jaxsparse.factory.durations import Durations
from jaxsparse.types import Masks

MOST_STEPS = 2**31 - 1  # step counters are int32
MOST_TIMES = 10**7  # of periodic events, which are listed before training

log = logging.getLogger(__name__)


def check_sizes(config: ConfigDict, dataset: Dataset) -> None:
    """Checks that sizes do not exceed those of the dataset.

    Args:
      config: a validated config.
      dataset: the dataset.

    Raises:
      ValueError: if one does; the message names the config field.
    """
    examples, *side = dataset.train.images.shape[:3]
    if config.data.batch_size > examples:
        raise ValueError(
            f"config.data.batch_size: expected at most the {examples} training "
            f"examples, got {config.data.batch_size}; {examples} trains on all at once"
        )
    pad, _ = components.augmentation(config.data)
    if pad > min(side):
        raise ValueError(
            f"config.data.crop_pad: expected at most the {min(side)} pixels "
            f"of a side of the images, got {pad}, with which crops can show padding "
            "alone"
        )
    c = config.sparse
    wanted = c.score_batches * c.score_batch_size
    if any(spec.needs_data for spec in scores_lib.used(config)) and wanted > examples:
        raise ValueError(
            f"config.sparse.score_batches: {c.score_batches} of {c.score_batch_size} "
            f"examples come to {wanted}; wanted at most the {examples} training "
            "examples"
        )


def check_lengths(config: ConfigDict, length: Durations) -> None:
    """Checks durations for impossible values, and logs warnings for ineffective ones.

    Args:
      config: a validated config.
      length: durations of the config in steps.

    Raises:
      ValueError: if training has too many steps, or something is done too often; the
        message names the config field.
    """
    total = length.total
    if total > MOST_STEPS:
        raise ValueError(
            f"config.training.length: expected at most {MOST_STEPS} updates, got "
            f"{config.training.length!r}, which is {total}"
        )
    for field, every in {
        "evaluation.every": length.evaluate_every,
        "analysis.gradient_every": length.gradient_every,
        "run.checkpoint_every": length.checkpoint_every,
        "sparse.update_every": length.sparse.get("update_every", 0),
    }.items():
        # A field that the method does not read keeps its default, however long training
        # is.
        if every and total // every > MOST_TIMES and _is_read(config, field):
            raise ValueError(
                f"config.{field}: expected at most {MOST_TIMES} times in training, got "
                f"every {every} of {total} updates; make it longer"
            )
    every = length.sparse.get("update_every", 0)
    if every >= total and _is_read(config, "sparse.update_every"):
        log.warning(
            "config.sparse.update_every: %r is %d updates of a training of %d, so that "
            "the masks hardly change; make it shorter",
            *(config.sparse.update_every, every, total),
        )
    if length.warmup > total:
        log.warning(
            "config.schedule.warmup: %r is %d updates of a training of %d, so that the "
            "learning rate never reaches config.schedule.learning_rate",
            *(config.schedule.warmup, length.warmup, total),
        )
    late = [step for step in length.milestones if step >= total]
    if late:
        log.warning(
            "config.schedule.milestones: updates %s are not in a training of %d, so "
            "that the learning rate does not drop there",
            *(late, total),
        )


def check_masks(config: ConfigDict, masks: Masks) -> None:
    """Checks that the sparsity leaves at least one weight.

    Args:
      config: a validated config.
      masks: dense masks of one replicate of the network.

    Raises:
      ValueError: if it leaves none; the message names the config field.
    """
    c, total = config.sparse, masks_lib.size(masks)
    if c.method == "none" or c.layers:
        return
    if not distributions.count_kept(total, c.sparsity):
        raise ValueError(
            f"config.sparse.sparsity: got {c.sparsity}, which leaves none of the "
            f"network's {total} prunable weights; expected at most {1 - 1 / total:.6g}"
        )


def _is_read(config: ConfigDict, field: str) -> bool:
    """Returns whether a field is used; one of "sparse", whether the method reads it."""
    section, _, name = field.partition(".")
    method = config_lib.METHODS.find(config.sparse.method)
    return section != "sparse" or name in method.fields
