"""Rescales initial weights with GradInit, as a config describes it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Int, Key
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import losses, replicates
from jaxsparse.data.dataset import Dataset
from jaxsparse.tost import gradinit, gradinit_options
from jaxsparse.training import steps
from jaxsparse.training.state import Seeds
from jaxsparse.types import Masks, Params

BATCHES = 3  # batches per step


def check(config: ConfigDict) -> None:
    """Checks that GradInit and its options are only set where they have an effect.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if levels would rewind to other weights, or an option is set without
        GradInit; the message names the config field.
    """
    c, lottery = config.gradinit, config.lottery
    used = c.steps > 0
    config_lib.check_unused(config, "gradinit", used, tuple(c), what="gradinit.steps")
    if used and (lottery.levels or lottery.rewind != "0step"):
        raise ValueError(
            "config.gradinit.steps: expected 0 with lottery.levels "
            f"{lottery.levels} and lottery.rewind {lottery.rewind!r}, got {c.steps}; "
            "train the ticket of an earlier run by warm_start.masks and "
            "warm_start.weights"
        )


Rescale = Callable[[Params, Any, Masks, Seeds], gradinit.GradInitResult]


def make_rescale(
    config: ConfigDict,
    dataset: Dataset,
    *,
    model: nn.Module,
    task: losses.PredictionTask,
    augment: steps.Augment | None,
) -> Rescale | None:
    """Makes the function that rescales initial weights with GradInit.

    Each step uses three batches of augmented examples, in an order drawn from the data
    seed. The gradient is that of the first two batches together. The loss after the
    look-ahead step is that of the first and the third.

    Args:
      config: a validated config.
      dataset: the dataset, with at least three batches of training examples.
      model: the network as it is at the beginning of training.
      task: inputs and targets of the network for a batch of examples.
      augment: random augmentation of the images; None leaves them unchanged.

    Returns:
      A function of weights, batch statistics, masks and seeds [r ...] to a
      `GradInitResult` [r ...]; None if the config does not rescale.

    Raises:
      ValueError: if there are fewer than three batches of training examples.

    Deviations:
      As in the authors' code, the two pairs of batches share half of their examples.
      The loss is the cross-entropy without label smoothing, even if training uses it,
      and the network is the one without ghost skips, even if training begins with them.
      The paper does not say how its techniques are combined.
    """
    c = config.gradinit
    if not c.steps:
        return None
    size, count = c.batch_size, len(dataset.train.labels)
    if count < BATCHES * size:
        raise ValueError(
            "config.gradinit.batch_size: expected at most a third of the "
            f"{count} training examples, got {size}; set a smaller one"
        )
    fields = gradinit_options.GradInitOptions._fields
    options = gradinit_options.GradInitOptions(**{name: c[name] for name in fields})

    loss, pair = _make_loss(model), _make_pair(task, augment)

    def every(params: Params, stats: Any, masks: Masks, seeds: Seeds) -> Any:
        found = []
        for r in range(len(seeds.data)):
            weights, own_stats, kept, data_key = replicates.take(
                (params, stats, masks, seeds.data), r
            )
            # A number that no other use of the data key folds in: training folds in 0,
            # 1 and levels, scores fold in 2**31.
            key = jax.random.fold_in(data_key, 2**31 + 1)
            rows = _rows(key, count=count, steps=c.steps, size=BATCHES * size)
            batches = functools.partial(_batches, pair, dataset, own_stats, key, rows)
            found.append(
                # Dispatched step by step, so that only the batches of one step are on
                # the device, and because CPUs compute second derivatives of
                # convolutions slowly in loops.
                gradinit.rescale(
                    loss, weights, kept, batches, options=options, dispatch=True
                )
            )
        return replicates.stack(found)

    return every


def _make_loss(model: nn.Module) -> Callable[[Params, Any], Any]:
    """Makes the function of weights and a batch to its mean cross-entropy.

    Args:
      model: the network as it is at the beginning of training. Batches are normalized
        by their own statistics, as in training.
    """

    def loss(params: Params, batch: Any) -> Any:
        stats, inputs, targets = batch
        logits, _ = model.apply(
            {"params": params, "batch_stats": stats},
            inputs,
            train=True,
            mutable=["batch_stats"],
        )
        return jnp.mean(losses.cross_entropy(logits, targets))

    return loss


def _make_pair(
    task: losses.PredictionTask, augment: steps.Augment | None
) -> Callable[..., tuple[Any, Any]]:
    """Makes the compiled function that prepares the two batches of a step.

    Args:
      task: inputs and targets of the network for a batch of examples.
      augment: random augmentation of the images; None leaves them unchanged.

    Returns:
      A function of batch statistics, the images and labels of three batches, and a
      random key.
    """

    @jax.jit
    def pair(stats: Any, images: Any, labels: Any, key: Any) -> tuple[Any, Any]:
        if augment is not None:
            places = jnp.arange(len(images), dtype=jnp.int32)
            images = augment(images, key=key, places=places)
        first, second, third = jnp.split(task.inputs(images), BATCHES)
        a, b, c = jnp.split(task.targets(images, labels), BATCHES)
        return (
            (stats, jnp.concatenate([first, second]), jnp.concatenate([a, b])),
            (stats, jnp.concatenate([first, third]), jnp.concatenate([a, c])),
        )

    return pair


def _batches(
    pair: Callable[..., Any],
    dataset: Dataset,
    stats: Any,
    key: Key[Any, ""],
    rows: Int[np.ndarray, "s b"],
    step: int,
) -> tuple[Any, Any]:
    """Returns the two overlapping batches of a step.

    Args:
      pair: function of batch statistics, images, labels and a key to the two batches.
      dataset: the dataset.
      stats: batch statistics of one replicate.
      key: typed random key of the replicate.
      rows: example indices of each step.
      step: number of the step.
    """
    images, labels = dataset.train.images, dataset.train.labels
    # 2**31 is never the number of an epoch, which `_rows` folds into the same key.
    draws = jax.random.fold_in(jax.random.fold_in(key, 2**31), step)
    return pair(stats, images[rows[step]], labels[rows[step]], draws)


def _rows(
    key: Key[Any, ""], *, count: int, steps: int, size: int
) -> Int[np.ndarray, "s b"]:
    """Draws the example indices of each step, without repetition within an epoch.

    Args:
      key: typed random key.
      count: number of training examples.
      steps: number of steps.
      size: examples per step, at most `count`.

    Returns:
      Example indices; a smaller rest of an epoch is dropped.
    """
    each = count // size
    orders = [
        jax.random.permutation(jax.random.fold_in(key, number), count)
        for number in range(-(-steps // each))
    ]
    rows = np.stack(jax.device_get(orders))[:, : each * size]
    return rows.reshape(-1, size)[:steps]
