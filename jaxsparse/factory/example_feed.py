"""Chooses where training examples are stored, and draws their order."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxsparse import multihost
from jaxsparse.data import shuffling
from jaxsparse.data.dataset import Dataset, Examples
from jaxsparse.data.image_files import StoredImages
from jaxsparse.training import chunk_inputs, input_pipeline, placement
from jaxsparse.training.mesh import MeshLayout

ORDERS_KEPT = 64  # epochs whose example order is cached on the devices


def is_streamed(
    where: chunk_inputs.Where, examples: Examples, layout: MeshLayout
) -> bool:
    """Returns whether each evaluation copies its examples from the host.

    Args:
      where: where training examples are stored.
      examples: examples of the evaluated set.
      layout: mesh of devices and placement of arrays on it.
    """
    if where == "sharded":  # evaluation sets are smaller and never sharded
        # The primary process decides, because devices of other hosts may report other
        # amounts of memory.
        return multihost.broadcast_from_primary(
            lambda: input_pipeline.choose(examples, layout) != "device"
        )
    return where == "host"


def choose_placement(
    config: ConfigDict, dataset: Dataset, layout: MeshLayout
) -> chunk_inputs.Where:
    """Returns where training examples are stored: "device", "sharded" or "host".

    Args:
      config: a validated config.
      dataset: the dataset.
      layout: mesh of devices and placement of arrays on it.

    Raises:
      ValueError: if the placement that the config requests is impossible.
    """
    asked = config.run.data_placement
    if asked == "auto":
        return multihost.broadcast_from_primary(
            lambda: input_pipeline.choose(dataset.train, layout)
        )
    if isinstance(dataset.train.images, StoredImages) and asked != "host":
        raise ValueError(
            "config.run.data_placement: expected 'host' or 'auto' for images that stay "
            f"in files, got {asked!r}; set config.data.image_size 0 for a dataset that "
            "fits into memory"
        )
    if asked == "sharded" and layout.data_devices == 1:
        raise ValueError(
            "config.run.data_placement: expected 'device' or 'host' where no two "
            f"devices share a batch ({dict(layout.mesh.shape)}), got 'sharded'; use "
            "'auto'"
        )
    return asked


def make_order(
    layout: MeshLayout, examples: int, rows: Any = None
) -> Callable[..., Any]:
    """Makes the function that draws the order of the examples in an epoch.

    Args:
      layout: mesh of devices and placement of arrays on it.
      examples: number of examples per epoch.
      rows: example indices to train on, int [r examples]; None for all examples.

    Returns:
      A function of keys [r] and the number of an epoch to example indices [r examples],
      sharded by replicate.
    """

    def one(key: Any, number: Any, mine: Any) -> Any:
        places = shuffling.epoch_order(key, epoch=number, examples=examples)
        return places if mine is None else mine[places]

    every = jax.vmap(one, in_axes=(0, None, None if rows is None else 0))
    draw = jax.jit(lambda keys, number: every(keys, number, rows))
    recent: dict[tuple[bytes, int], Any] = {}

    def make(keys: Any, number: int) -> Any:
        # Cached, because levels and controls use the same orders again and drawing one
        # is slow.
        name = (np.asarray(jax.random.key_data(keys)).tobytes(), number)
        if name not in recent:
            if len(recent) == ORDERS_KEPT:
                del recent[next(iter(recent))]
            recent[name] = placement.shard_replicates(layout, draw(keys, number))
        return recent[name]

    return make
