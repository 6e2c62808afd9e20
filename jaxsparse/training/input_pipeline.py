"""Where the examples of training come from: the devices' memory, or the host's.

A set that fits lies on every device whole, or divided over those that share a batch,
and steps gather their batches there (`Resident`). A larger one stays on the host, whose
threads gather the batches of the next calls while the devices work on this one
(`Streamed`). All give a step the same examples in the same places of its batch. Images
that are still in files are always streamed, and decoded by those threads.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, UInt32

from jaxsparse.data.dataset import Examples
from jaxsparse.data.image_files import StoredImages
from jaxsparse.training import mesh
from jaxsparse.training.mesh import MeshLayout
from jaxsparse.training.scan_chunks import ChunkInputs, ScanChunk, Where

# Of a device's memory, for the images of a set that lies there whole.
SHARE = 0.25
BUDGET = 2**26  # bytes of the images of one streamed call, unless one step has more
AHEAD = 2  # calls whose batches are gathered before they are asked for
IN_FLIGHT = 4  # calls on the devices, with their images

MakeOrder = Callable[[Key[Array, "r"], int], Any]
FedChunk = tuple[ScanChunk, ChunkInputs]


@runtime_checkable
class Feed(Protocol):
    """Gives calls their examples.

    Attributes:
      make_order: `(keys, epoch)` to the order of examples [r n], placed.
    """

    make_order: MakeOrder

    def serve(
        self, keys: Key[Array, "r"], calls: Iterable[ScanChunk]
    ) -> Iterator[FedChunk]:
        """Yields each call with what its program takes."""


class DeviceFeed(NamedTuple):
    """Examples on the devices.

    Attributes:
      images: all of them, placed, perhaps divided over devices.
      labels: as `images`.
      make_order: see `Feed`.
      growth: images and labels that decide what is grown, placed; None for none.
    """

    images: Any
    labels: Any
    make_order: MakeOrder
    growth: Any = None

    def serve(
        self, keys: Key[Array, "r"], calls: Iterable[ScanChunk]
    ) -> Iterator[FedChunk]:
        """Yields each call with all examples and the order of its epoch."""
        order, number = None, -1
        for call in calls:
            if call.epoch != number:
                order, number = self.make_order(keys, call.epoch), call.epoch
            first = jnp.int32(call.first)
            yield call, ChunkInputs(self.images, self.labels, order, first, self.growth)


class HostFeed(NamedTuple):
    """Examples on the host.

    Attributes:
      examples: all of them, in memory, mapped to it, or still in files.
      make_order: see `Feed`.
      layout: how the run uses its devices.
      lengths: from a call's steps to those its program has room for.
      growth: as of `Resident`.
    """

    examples: Examples
    make_order: MakeOrder
    layout: MeshLayout
    lengths: Callable[[int], int]
    growth: Any = None

    def serve(
        self, keys: Key[Array, "r"], calls: Iterable[ScanChunk]
    ) -> Iterator[FedChunk]:
        """Yields each call with the examples of its steps.

        Batches of an epoch are gathered in threads, and the next order is drawn while
        it lasts.
        """
        for number, group in itertools.groupby(calls, key=lambda call: call.epoch):
            order = mesh.on_host(self.layout, self.make_order(keys, number))
            self.make_order(keys, number + 1)  # dispatched now, and kept
            listed = list(group)
            read = self._read(order, listed, np.asarray(jax.random.key_data(keys)))
            try:
                for call, parts in zip(listed, read, strict=True):
                    placed = mesh.shard_batch(self.layout, parts)
                    yield call, ChunkInputs(*placed, growth=self.growth)
            finally:
                read.close()  # also where training stops midway

    def _read(
        self, order: np.ndarray, calls: Sequence[ScanChunk], words: np.ndarray
    ) -> Any:
        import grain  # a second, that other runs need not wait for

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
        """Copies what a call trains on, for each device of this process its share.

        What other processes train on is not looked at.

        Args:
          order: of the examples in the call's epoch, for each replicate.
          call: which steps.
          words: data of the replicates' keys, from which crops of images are drawn
            that are still in files; None where there are none.

        Returns:
          Images [r s b h w c] and labels [r s b] of each device's replicates.
        """
        stop = call.first + call.length * call.batch_size
        shape = (len(order), call.length, call.batch_size)
        rows = order[:, call.first : stop].reshape(shape)
        images, labels = self.examples
        in_files = isinstance(images, StoredImages)
        found = []
        for mine, (group, places) in zip(
            mesh.shares(self.layout, rows), self._where(shape, call), strict=True
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
        """Yields each device's replicates and places in the order of the epoch."""
        places = call.first + np.arange(shape[1] * shape[2]).reshape(shape[1:])
        return zip(
            *(
                mesh.shares(self.layout, np.broadcast_to(numbers, shape))
                for numbers in (np.arange(shape[0])[:, None, None], places)
            ),
            strict=True,
        )

    def _with_room(self, leaf: np.ndarray) -> np.ndarray:
        """Adds zeros for the steps that a call's program has room for besides."""
        length = leaf.shape[1]
        missing = self.lengths(length) - length
        if not missing:
            return leaf
        return np.pad(leaf, [(0, 0), (0, missing)] + [(0, 0)] * (leaf.ndim - 2))


def choose(examples: Examples, layout: MeshLayout) -> Where:
    """Chooses where a set lies: on every device, divided over devices, or on the host.

    Its images, or the part of them, must take at most a quarter of the memory that JAX
    may use of a device. Where a device does not say how much that is, as CPUs do not,
    all sets fit. Images that are still in files stay on the host.
    """
    if isinstance(examples.images, StoredImages):
        return "host"
    limits = [_memory(device) for device in layout.mesh.local_devices]
    least = min((limit for limit in limits if limit), default=None)
    if least is None or examples.images.nbytes <= SHARE * least:
        return "device"
    part = -(-examples.images.nbytes // layout.data_devices)
    return "sharded" if part <= SHARE * least else "host"


def _memory(device: Any) -> int | None:
    return (device.memory_stats() or {}).get("bytes_limit")


def steps_per_call(
    examples: Examples, *, wanted: int, batch_size: int, replicates: int
) -> int:
    """Returns how many steps a streamed call has, at least one.

    Its images take at most `BUDGET` bytes, as several calls are in memory at once.

    Args:
      examples: the training set.
      wanted: steps at most.
      batch_size: examples a step, of each replicate.
      replicates: seeds trained at once.
    """
    image = examples.images.nbytes // len(examples.labels)
    return max(1, min(wanted, BUDGET // (image * batch_size * replicates)))


def growth_examples(
    layout: MeshLayout, examples: Examples, *, first: int, count: int
) -> Any:
    """Places the examples whose gradient decides what is grown; None for none of them.

    Args:
      layout: how the run uses its devices.
      examples: the training set.
      first: the first of them.
      count: how many.
    """
    if not count:
        return None
    chosen = slice(first, first + count)
    some = (np.asarray(examples.images[chosen]), np.asarray(examples.labels[chosen]))
    return mesh.replicate(layout, some)


def make_feed(
    examples: Examples,
    make_order: MakeOrder,
    *,
    layout: MeshLayout,
    where: Where,
    lengths: Callable[[int], int],
    growth: Any = None,
) -> Feed:
    """Makes what feeds a trainer.

    Args:
      examples: the training set, on the host.
      make_order: see `Feed`.
      layout: how the run uses its devices.
      where: where it is to lie.
      lengths: see `Streamed`.
      growth: what `growth_examples` returned.
    """
    if where == "host":
        return HostFeed(examples, make_order, layout, lengths, growth)
    place = mesh.shard_examples if where == "sharded" else mesh.replicate
    placed = place(layout, tuple(examples))
    return DeviceFeed(*placed, make_order, growth)
