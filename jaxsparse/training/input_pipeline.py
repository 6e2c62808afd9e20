"""Supplies chunks with training examples, from device memory or from the host.

A set that fits is copied whole to every device, or sharded over the devices that share
a batch, and steps gather their batches there (`DeviceFeed`). A larger set stays on the
host, where threads gather the batches of the next chunks while the devices run the
current one (`HostFeed`). All of them give a step the same examples at the same
positions of its batch. Images that are still in files always stay on the host; the
threads decode them.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Int, Key, UInt32

from jaxsparse import extras
from jaxsparse.data.dataset import Examples
from jaxsparse.data.image_files import StoredImages
from jaxsparse.training import mesh, placement
from jaxsparse.training.chunk_inputs import ChunkInputs, Where
from jaxsparse.training.chunk_plan import ScanChunk
from jaxsparse.training.mesh import MeshLayout

# Fraction of a device's memory that the images of a training set may occupy.
SHARE = 0.25
BUDGET = 2**26  # bytes of images per chunk from the host; one step may exceed it
AHEAD = 2  # chunks whose batches are gathered in advance
IN_FLIGHT = 4  # dispatched chunks, each with its images in device memory

MakeOrder = Callable[[Key[Array, "r"], int], Any]
FedChunk = tuple[ScanChunk, ChunkInputs]


@runtime_checkable
class Feed(Protocol):
    """Supplies chunks with their training examples.

    Attributes:
      make_order: function `(keys, epoch)` that returns the order of the examples in an
        epoch, int [r n], sharded by replicate.
    """

    make_order: MakeOrder

    def iterate(
        self, keys: Key[Array, "r"], calls: Iterable[ScanChunk]
    ) -> Iterator[FedChunk]:
        """Yields each chunk with the inputs of its compiled function.

        Args:
          keys: typed random keys of the example order, one per replicate [r].
          calls: chunks, in the order of training.
        """


class DeviceFeed(NamedTuple):
    """Supplies examples that are stored on the devices.

    Attributes:
      images: all training images [n h w c], placed on the devices, possibly sharded.
      labels: all labels [n], placed on the devices, possibly sharded.
      make_order: function `(keys, epoch)` that returns the order of the examples in an
        epoch, int [r n], sharded by replicate.
      growth: images and labels, on every device, whose gradient scores the weights to
        grow; None to use the gradient of the training batch.
    """

    images: Any
    labels: Any
    make_order: MakeOrder
    growth: Any = None

    def iterate(
        self, keys: Key[Array, "r"], calls: Iterable[ScanChunk]
    ) -> Iterator[FedChunk]:
        """Yields each chunk with all examples and the order of its epoch.

        Args:
          keys: typed random keys of the example order, one per replicate [r].
          calls: chunks, in the order of training.
        """
        order, number = None, -1
        for call in calls:
            if call.epoch != number:
                order, number = self.make_order(keys, call.epoch), call.epoch
            first = np.int32(call.first)
            yield call, ChunkInputs(self.images, self.labels, order, first, self.growth)


class HostFeed(NamedTuple):
    """Supplies examples that stay on the host.

    Attributes:
      examples: all training examples, in memory, memory-mapped, or still in files.
      make_order: function `(keys, epoch)` that returns the order of the examples in an
        epoch, int [r n], sharded by replicate.
      layout: mesh of devices and placement of arrays on it.
      lengths: function from the length of a chunk to the number of steps that its
        compiled function has room for.
      growth: images and labels, on every device, whose gradient scores the weights to
        grow; None to use the gradient of the training batch.
    """

    examples: Examples
    make_order: MakeOrder
    layout: MeshLayout
    lengths: Callable[[int], int]
    growth: Any = None

    def iterate(
        self, keys: Key[Array, "r"], calls: Iterable[ScanChunk]
    ) -> Iterator[FedChunk]:
        """Yields each chunk with the examples of its steps.

        Threads gather the batches of an epoch in advance. The order of the next epoch
        is drawn on the devices meanwhile.

        Args:
          keys: typed random keys of the example order, one per replicate [r].
          calls: chunks, in the order of training.
        """
        for number, group in itertools.groupby(calls, key=lambda call: call.epoch):
            order = placement.on_host(self.layout, self.make_order(keys, number))
            # Dispatched now and cached by `make_order`, so that the next epoch starts
            # without waiting for its order.
            self.make_order(keys, number + 1)
            listed = list(group)
            read = self._read(order, listed, np.asarray(jax.random.key_data(keys)))
            try:
                for call, parts in zip(listed, read, strict=True):
                    placed = placement.shard_batch(self.layout, parts)
                    yield call, ChunkInputs(*placed, growth=self.growth)
            finally:
                read.close()  # stops the threads, also if training is interrupted

    def _read(
        self, order: np.ndarray, calls: Sequence[ScanChunk], words: np.ndarray
    ) -> Any:
        import grain  # here, because it takes a second that other runs can save

        gather = functools.partial(self.gather, order, words=words)
        ahead = grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD)
        return iter(grain.MapDataset.source(calls).map(gather).to_iter_dataset(ahead))

    def gather(
        self,
        order: Int[np.ndarray, "r n"],
        call: ScanChunk,
        *,
        words: UInt32[np.ndarray, "r k"] | None = None,
    ) -> list[Examples]:
        """Copies the examples of a chunk, one share for each device of this process.

        Examples that only other processes train on are not read.

        Args:
          order: example indices in the order of the chunk's epoch, for each replicate.
          call: the chunk.
          words: key data of the replicates' keys, from which random crops of images
            stored in files are drawn; None if the images are not in files.

        Returns:
          For each device of this process, in mesh order, images [r s b h w c] and
          labels [r s b] of its replicates and its part of the batches.
        """
        stop = call.first + call.length * call.batch_size
        shape = (len(order), call.length, call.batch_size)
        rows = order[:, call.first : stop].reshape(shape)
        images, labels = self.examples
        in_files = isinstance(images, StoredImages)
        found = []
        for mine, (group, places) in zip(
            placement.shares(self.layout, rows), self._where(shape, call), strict=True
        ):
            if in_files:
                pixels = images.crops(
                    mine.reshape(-1),
                    words=words[group.reshape(-1)],
                    epoch=call.epoch,
                    places=places.reshape(-1),
                ).reshape(*mine.shape, *images.shape[1:])
            else:
                pixels = images[mine]
            found.append(Examples(*map(self._with_room, (pixels, labels[mine]))))
        return found

    def _where(
        self, shape: tuple[int, int, int], call: ScanChunk
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields each device's replicate numbers and positions in the epoch's order."""
        places = call.first + np.arange(shape[1] * shape[2]).reshape(shape[1:])
        return zip(
            *(
                placement.shares(self.layout, np.broadcast_to(numbers, shape))
                for numbers in (np.arange(shape[0])[:, None, None], places)
            ),
            strict=True,
        )

    def _with_room(self, leaf: np.ndarray) -> np.ndarray:
        """Pads [r s ...] with zeros to the steps of the compiled function."""
        length = leaf.shape[1]
        missing = self.lengths(length) - length
        if not missing:
            return leaf
        return np.pad(leaf, [(0, 0), (0, missing)] + [(0, 0)] * (leaf.ndim - 2))


def choose(examples: Examples, layout: MeshLayout) -> Where:
    """Chooses where to store a set of examples.

    Images that are still in files stay on the host. Otherwise a set is stored on every
    device if its images occupy at most a quarter of the device memory that JAX may use.
    If not, it is sharded if the part of one device satisfies that limit, and else stays
    on the host. Where devices do not report their memory, as CPUs do not, every set
    counts as small enough.

    Args:
      examples: the set, on the host.
      layout: mesh of devices; the smallest memory of this process's devices counts.

    Returns:
      "device", "sharded" or "host".
    """
    if isinstance(examples.images, StoredImages):
        return "host"
    limits = [mesh.memory(device) for device in layout.mesh.local_devices]
    least = min((limit for limit in limits if limit), default=None)
    if least is None or examples.images.nbytes <= SHARE * least:
        return "device"
    part = -(-examples.images.nbytes // layout.data_devices)
    return "sharded" if part <= SHARE * least else "host"


def steps_per_call(
    examples: Examples, *, wanted: int, batch_size: int, replicates: int
) -> int:
    """Returns the number of steps per chunk for a set on the host, at least one.

    The images of a chunk occupy at most `BUDGET` bytes, because several chunks are in
    memory at once.

    Args:
      examples: the training set.
      wanted: maximum number of steps.
      batch_size: examples per step and replicate.
      replicates: number of seeds trained in parallel.
    """
    image = examples.images.nbytes // len(examples.labels)
    return max(1, min(wanted, BUDGET // (image * batch_size * replicates)))


def grow_batch_size(
    layout: MeshLayout, examples: Examples, *, first: int, count: int
) -> Any:
    """Copies the examples whose gradient scores the weights to grow to every device.

    Args:
      layout: mesh of devices and placement of arrays on it.
      examples: the training set.
      first: index of the first of these examples in the training set.
      count: number of examples; 0 to use the gradient of the training batch.

    Returns:
      Images uint8 [count h w c] and labels [count]; None if `count` is 0.
    """
    if not count:
        return None
    chosen = slice(first, first + count)
    some = (np.asarray(examples.images[chosen]), np.asarray(examples.labels[chosen]))
    return placement.replicate(layout, some)


def make_feed(
    examples: Examples,
    make_order: MakeOrder,
    *,
    layout: MeshLayout,
    where: Where,
    lengths: Callable[[int], int],
    growth: Any = None,
) -> Feed:
    """Makes the feed that supplies a trainer with examples.

    Args:
      examples: the training set, on the host.
      make_order: function `(keys, epoch)` that returns the order of the examples in an
        epoch, int [r n], sharded by replicate.
      layout: mesh of devices and placement of arrays on it.
      where: where to store the set: "device", "sharded" or "host".
      lengths: function from the length of a chunk to the number of steps that its
        compiled function has room for; used for "host" only.
      growth: result of `grow_batch_size`.
    """
    if where == "host":
        extras.require("grain", purpose="examples that stay on the host")
        return HostFeed(examples, make_order, layout, lengths, growth)
    place = placement.shard_examples if where == "sharded" else placement.replicate
    placed = place(layout, tuple(examples))
    return DeviceFeed(*placed, make_order, growth)
