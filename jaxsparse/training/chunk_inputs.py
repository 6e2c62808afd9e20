"""The examples that a chunk of training steps reads, and how a step takes its batch."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxsparse.training import state_sharding
from jaxsparse.training.mesh import DATA, REPLICATE, MeshLayout

# Where training examples are stored: a whole copy on every device, sharded over the
# devices that share a batch, or on the host.
Where = Literal["device", "sharded", "host"]


class ChunkInputs(NamedTuple):
    """Examples that a chunk trains on; r replicates, s steps, b examples per step.

    Attributes:
      images: all training images, uint8 [n h w c]; or, if `order` is None, those of the
        chunk's steps [r s b h w c].
      labels: all labels, int32 [n]; or, if `order` is None, those of the steps [r s b].
      order: example indices in the order of the chunk's epoch, int [r n]; None if
        `images` and `labels` are already in order.
      first: position of the chunk's first example in `order`, int32 scalar; None if
        `order` is None.
      growth: images and labels of a separate batch whose gradient scores the weights to
        grow, present on every device; None to use the gradient of the training batch.
    """

    images: Any
    labels: Any
    order: Any = None
    first: Any = None
    growth: Any = None


def _given(
    shares: int, data: ChunkInputs, index: Any, batch_size: int, offset: Any
) -> tuple[Any, Any]:
    """Takes this device's share of a batch from examples gathered on the host."""
    del shares, batch_size, offset
    return data.images[index], data.labels[index]


def _looked_up(
    shares: int, data: ChunkInputs, index: Any, batch_size: int, offset: Any
) -> tuple[Any, Any]:
    """Takes this device's share of a batch from a whole copy of the examples."""
    share, place = batch_size // shares, data.first + index * batch_size + offset
    rows = jax.lax.dynamic_slice_in_dim(data.order, place, share)
    images = jnp.take(data.images, rows, axis=0, mode="clip")
    return images, jnp.take(data.labels, rows, axis=0, mode="clip")


def _exchanged(
    shares: int, data: ChunkInputs, index: Any, batch_size: int, offset: Any
) -> tuple[Any, Any]:
    """Takes this device's share of a batch from examples sharded over devices.

    Every device looks up the examples of the whole batch that it stores, with zeros for
    the others. A reduce-scatter over the devices then delivers each share. Every sum
    has one nonzero term and is therefore exact.
    """
    del shares, offset
    place = data.first + index * batch_size
    rows = jax.lax.dynamic_slice_in_dim(data.order, place, batch_size)

    def one(part: Array) -> Array:
        places = rows - jax.lax.axis_index(DATA) * len(part)
        here = (places >= 0) & (places < len(part))
        found = jnp.take(part, places, axis=0, mode="clip")
        found = jnp.where(here.reshape(-1, *(1,) * (part.ndim - 1)), found, 0)
        return jax.lax.psum_scatter(found, DATA, tiled=True)

    return one(data.images), one(data.labels)


_BATCHES = {"host": _given, "device": _looked_up, "sharded": _exchanged}


def make_batch(layout: MeshLayout, examples: Where) -> Callable[..., tuple[Any, Any]]:
    """Selects the function that takes a device's share of a batch.

    Args:
      layout: mesh of devices and placement of arrays on it.
      examples: where training examples are stored.

    Returns:
      A function `(shares, data, index, batch_size, offset)` to images and labels: the
      number of devices that share a batch, the chunk's inputs, the step's number within
      the chunk, the size of the whole batch, and the first position of the share in it.
    """
    if not layout.divides:
        return _BATCHES[examples]

    def divided(*args: Any) -> tuple[Any, Any]:
        find = _given if examples == "host" else _looked_up
        return state_sharding.divide_batch(layout, find(*args))

    return divided


def growth_batch(layout: MeshLayout, data: ChunkInputs) -> dict[str, Any]:
    """Returns the batch that scores weights to grow as a keyword argument.

    Args:
      layout: mesh of devices and placement of arrays on it.
      data: inputs of a chunk.

    Returns:
      The keyword argument `growth` of the training step; empty if there is no batch.
    """
    if data.growth is None:
        return {}
    if layout.divides and not len(data.growth[1]) % layout.data_devices:
        return {"growth": state_sharding.divide_batch(layout, data.growth)}
    return {"growth": data.growth}


def partition_specs(examples: Where) -> ChunkInputs:
    """Returns the partition specs of `ChunkInputs` for `shard_map`.

    Args:
      examples: where training examples are stored.
    """
    if examples == "host":
        by_batch = jax.P(REPLICATE, None, DATA)
        return ChunkInputs(by_batch, by_batch, None, None, jax.P())
    part = jax.P(DATA) if examples == "sharded" else jax.P()
    return ChunkInputs(part, part, jax.P(REPLICATE), jax.P(), jax.P())
