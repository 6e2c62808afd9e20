"""Checks that the sizes and durations of a config fit its data and network."""

import logging
import os
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import distributions
from jaxsparse import masks as masks_lib
from jaxsparse.data.dataset import Dataset
from jaxsparse.factory import input_data
from jaxsparse.factory import scores as scores_lib
from jaxsparse.factory.durations import Durations
from jaxsparse.training import mesh
from jaxsparse.training.mesh import MeshLayout
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
            f"examples, got {config.data.batch_size}; set a smaller one"
        )
    pad, _ = input_data.augmentation(config.data)
    if pad > min(side):
        raise ValueError(
            f"config.data.crop_pad: expected at most the {min(side)} pixels of a side "
            f"of the images, got {pad}; crops would show padding alone"
        )
    c = config.sparse
    scored = c.score_batches * c.score_batch_size
    specs = scores_lib.used(config).values()
    if any(spec.needs_data for spec in specs) and scored > examples:
        raise ValueError(
            f"config.sparse.score_batches: expected at most the {examples} training "
            f"examples in all batches, got {c.score_batches} batches of "
            f"{c.score_batch_size}, which is {scored}; set fewer or smaller batches"
        )


def check_lengths(config: ConfigDict, length: Durations) -> None:
    """Checks durations for impossible values, and logs warnings for ineffective ones.

    Args:
      config: a validated config.
      length: durations of the config in steps.

    Raises:
      ValueError: if training has too many steps, something is done too often, or a
        trace ends before it begins; the message names the config field.
    """
    total = length.total
    if total > MOST_STEPS:
        raise ValueError(
            f"config.training.duration: expected at most {MOST_STEPS} steps, got "
            f"{config.training.duration!r}, which is {total}; shorten it"
        )
    for field, every in {
        "evaluation.every": length.intervals.evaluate_every,
        "analysis.gradient_every": length.intervals.gradient_every,
        "run.checkpoint_every": length.intervals.checkpoint_every,
        "sparse.update_every": length.sparse.get("update_every", 0),
    }.items():
        # A field that the method does not read keeps its default, however long training
        # is.
        if every and total // every > MOST_TIMES and _is_read(config, field):
            raise ValueError(
                f"config.{field}: expected at most {MOST_TIMES} times in training, got "
                f"every {every} of {total} steps; set a longer interval"
            )
    trace = length.intervals.trace
    if trace and trace[0] >= trace[1]:
        raise ValueError(
            "config.run.trace: expected the second time after the first, got "
            f"{config.run.trace!r}, which are steps {trace}; swap or change them"
        )
    every = length.sparse.get("update_every", 0)
    if every >= total and _is_read(config, "sparse.update_every"):
        log.warning(
            "config.sparse.update_every: expected fewer steps than training has, got "
            "%r, which is %d of %d; masks hardly change: set a shorter interval",
            *(config.sparse.update_every, every, total),
        )
    if length.schedule.warmup > total:
        log.warning(
            "config.schedule.warmup: expected at most the length of training, got %r, "
            "which is %d of %d steps; the learning rate never reaches "
            "config.schedule.learning_rate",
            *(config.schedule.warmup, length.schedule.warmup, total),
        )
    late = [step for step in length.schedule.milestones if step >= total]
    if late:
        log.warning(
            "config.schedule.milestones: expected steps within training, got %s of %d "
            "steps; the learning rate does not drop there",
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
    if c.method == "none" or c.layer_sparsity:
        return
    if not distributions.count_kept(total, c.sparsity):
        raise ValueError(
            f"config.sparse.sparsity: expected at most {1 - 1 / total:.6g}, which "
            f"keeps 1 of the network's {total} prunable weights, got {c.sparsity}; set "
            "less"
        )


def check_memory(config: ConfigDict, params: Any, layout: MeshLayout) -> None:
    """Checks that memory can hold the parameters of all replicates.

    This is a lower bound: training needs several times as much.

    Args:
      config: a validated config.
      params: parameters of all replicates, perhaps abstract.
      layout: mesh of devices.

    Raises:
      ValueError: if it cannot; the message names the config field.
    """
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    needed, there = size // jax.process_count(), local_memory(layout)
    if needed > there:
        raise ValueError(
            f"config.replicates: expected parameters of at most {there / 2**30:.0f} "
            f"GiB, the memory here, got {config.replicates} replicates, which take "
            f"{needed / 2**30:.0f} GiB; train fewer in this run and the others in "
            "another, with --config.seeds.first"
        )


def local_memory(layout: MeshLayout) -> int:
    """Returns the bytes of memory of this process's devices.

    Args:
      layout: mesh of devices. Those that do not report their memory, as CPUs do not,
        share that of the host.
    """
    limits = [mesh.memory(device) for device in layout.mesh.local_devices]
    if None in limits:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return sum(limits)


def _is_read(config: ConfigDict, field: str) -> bool:
    """Returns whether a field is used; one of "sparse", whether the method reads it."""
    section, _, name = field.partition(".")
    method = config_lib.METHODS.find(config.sparse.method)
    return section != "sparse" or name in method.fields
