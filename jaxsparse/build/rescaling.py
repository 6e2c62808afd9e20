"""Rescaled initialisation, from a config: which network, which batches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Int, Key
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse.data.examples import Dataset
from jaxsparse.tost import rescaling
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


Rescale = Callable[[Params, Any, Masks, Seeds], rescaling.Rescaled]


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
    fields = rescaling.Settings._fields
    settings = rescaling.Settings(**{name: c[name] for name in fields})

    @jax.jit
    def one(
        weights: tuple[Params, Any, Masks], images: Any, labels: Any, key: Any
    ) -> rescaling.Rescaled:
        params, stats, masks = weights

        def loss(params: Params, batch: Any) -> Any:
            variables = {"params": params, "batch_stats": stats}
            logits, _ = model.apply(
                variables, batch[0], train=True, mutable=["batch_stats"]
            )
            return jnp.mean(losses.cross_entropy(logits, batch[1]))

        def batches(step: Int[Any, ""]) -> tuple[Any, Any]:
            mine = images[step]
            if augment is not None:
                places = jnp.arange(len(mine), dtype=jnp.int32)
                mine = augment(mine, key=jax.random.fold_in(key, step), places=places)
            first, second, third = jnp.split(normalize(mine), BATCHES)
            a, b, c = jnp.split(labels[step], BATCHES)
            return (
                (jnp.concatenate([first, second]), jnp.concatenate([a, b])),
                (jnp.concatenate([first, third]), jnp.concatenate([a, c])),
            )

        return rescaling.rescale(loss, params, masks, batches, settings=settings)

    def every(params: Params, stats: Any, masks: Masks, seeds: Seeds) -> Any:
        found = []
        for r in range(len(seeds.data)):
            weights = _of(r, (params, stats, masks))
            key = jax.random.fold_in(_of(r, jax.random.clone(seeds.data)), 2**31 + 1)
            rows = _rows(key, count=count, steps=c.steps, size=BATCHES * size)
            examples = dataset.train.images[rows], dataset.train.labels[rows]
            # One at a time: their batches are many, all on the device.
            rescaled = one(weights, *examples, jax.random.fold_in(key, 2**31))
            found.append(jax.block_until_ready(rescaled))
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    return every


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
