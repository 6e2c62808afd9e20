"""Rescaled initialisation, from a config: which network, which batches."""

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
from jaxsparse.data.dataset import Dataset
from jaxsparse.tost import gradinit
from jaxsparse.training import losses, steps
from jaxsparse.training.state import Seeds
from jaxsparse.types import Masks, Params

BATCHES = 3  # that a step takes


def check(config: ConfigDict) -> None:
    """Refuses rescaling where levels rewind, and its options without it.

    Raises:
      ValueError: naming the field.
    """
    c, lottery = config.rescaling, config.lottery
    used = c.steps > 0
    config_lib.check_unused(config, "rescaling", used, tuple(c), what="rescaling.steps")
    if used and (lottery.levels or lottery.rewind != "0step"):
        raise ValueError(
            f"config.rescaling.steps: came {c.steps} with lottery.levels "
            f"{lottery.levels} and rewind {lottery.rewind!r}; wanted no levels: give a "
            "ticket that was found before by start.masks and start.weights"
        )


Rescale = Callable[[Params, Any, Masks, Seeds], gradinit.GradInitResult]


def make_rescale(
    config: ConfigDict,
    dataset: Dataset,
    *,
    model: nn.Module,
    normalize: Callable[..., Any],
    augment: steps.Augment | None,
) -> Rescale | None:
    """Makes what rescales initial weights; None if the config wants none.

    Args:
      config: a validated config.
      dataset: what is trained on: each step takes three batches in an order drawn from
        the seed of the data, augmented. The first two together give the gradient, and
        the first and the third the loss after the look-ahead.
      model: the network as it is when training begins.
      normalize: uint8 images to the network's floats.
      augment: random changes of images; None for none.

    Returns:
      A function of weights, batch statistics, masks and seeds [r ...] to what came of
      it [r ...].

    Raises:
      ValueError: if there are not so many examples.

    Deviations:
      The authors' two pairs of batches share half of their examples; so do these. The
      loss is plain cross-entropy, also where training smooths labels.
    """
    c = config.rescaling
    if not c.steps:
        return None
    size, count = c.batch_size, len(dataset.train.labels)
    if count < BATCHES * size:
        raise ValueError(
            f"config.rescaling.batch_size: came {size}; wanted at most a third of the "
            f"{count} training examples"
        )
    fields = gradinit.GradInitOptions._fields
    settings = gradinit.GradInitOptions(**{name: c[name] for name in fields})

    def loss(params: Params, batch: Any) -> Any:
        stats, images, labels = batch
        logits, _ = model.apply(
            {"params": params, "batch_stats": stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return jnp.mean(losses.cross_entropy(logits, labels))

    @jax.jit
    def pair(stats: Any, images: Any, labels: Any, key: Any) -> tuple[Any, Any]:
        if augment is not None:
            places = jnp.arange(len(images), dtype=jnp.int32)
            images = augment(images, key=key, places=places)
        first, second, third = jnp.split(normalize(images), BATCHES)
        a, b, c = jnp.split(labels, BATCHES)
        return (
            (stats, jnp.concatenate([first, second]), jnp.concatenate([a, b])),
            (stats, jnp.concatenate([first, third]), jnp.concatenate([a, c])),
        )

    def every(params: Params, stats: Any, masks: Masks, seeds: Seeds) -> Any:
        found = []
        for r in range(len(seeds.data)):
            weights, mine, kept = _of(r, (params, stats, masks))
            key = jax.random.fold_in(_of(r, jax.random.clone(seeds.data)), 2**31 + 1)
            rows = _rows(key, count=count, steps=c.steps, size=BATCHES * size)
            batches = functools.partial(_batches, pair, dataset, mine, key, rows)
            found.append(
                gradinit.rescale(
                    loss, weights, kept, batches, settings=settings, dispatch=True
                )
            )
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    return every


def _batches(
    pair: Callable[..., Any],
    dataset: Dataset,
    stats: Any,
    key: Key[Any, ""],
    rows: Int[np.ndarray, "s b"],
    step: int,
) -> tuple[Any, Any]:
    """Gives a step its batches."""
    images, labels = dataset.train.images, dataset.train.labels
    draws = jax.random.fold_in(jax.random.fold_in(key, 2**31), step)
    return pair(stats, images[rows[step]], labels[rows[step]], draws)


def _of(r: int, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[r], tree)


def _rows(
    key: Key[Any, ""], *, count: int, steps: int, size: int
) -> Int[np.ndarray, "s b"]:
    """Lists the examples of each step; in an epoch none comes twice."""
    each = count // size
    orders = [
        jax.random.permutation(jax.random.fold_in(key, number), count)
        for number in range(-(-steps // each))
    ]
    rows = np.stack(jax.device_get(orders))[:, : each * size]
    return rows.reshape(-1, size)[:steps]
