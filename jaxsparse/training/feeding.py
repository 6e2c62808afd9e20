"""Where the examples of training come from: the devices' memory, or the host's.

A set that fits lies on every device whole, or divided over those that share a batch,
and steps gather their batches there (`Resident`). A larger one stays on the host, whose
threads gather the batches of the next calls while the devices work on this one
(`Streamed`). All give a step the same examples in the same places of its batch.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from jaxsparse.data.examples import Examples
from jaxsparse.training import sharding
from jaxsparse.training.epoch import Call, Data, Where
from jaxsparse.training.sharding import Layout

# Of a device's memory, for the images of a set that lies there whole.
SHARE = 0.25
BUDGET = 2**26  # bytes of the images of one streamed call, unless one step has more
AHEAD = 2  # calls whose batches are gathered before they are asked for
IN_FLIGHT = 4  # calls on the devices, with their images

MakeOrder = Callable[[Key[Array, "r"], int], Any]
Fed = tuple[Call, Data]


@runtime_checkable
class Feed(Protocol):
    """Gives calls their examples.

    Attributes:
      make_order: `(keys, epoch)` to the order of examples [r n], placed.
    """

    make_order: MakeOrder

    def serve(self, keys: Key[Array, "r"], calls: Iterable[Call]) -> Iterator[Fed]:
        """Yields each call with what its program takes."""


class Resident(NamedTuple):
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

    def serve(self, keys: Key[Array, "r"], calls: Iterable[Call]) -> Iterator[Fed]:
        """Yields each call with all examples and the order of its epoch."""
        order, number = None, -1
        for call in calls:
            if call.epoch != number:
                order, number = self.make_order(keys, call.epoch), call.epoch
            first = jnp.int32(call.first)
            yield call, Data(self.images, self.labels, order, first, self.growth)


class Streamed(NamedTuple):
    """Examples on the host.

    Attributes:
      examples: all of them, in memory or mapped to it.
      make_order: see `Feed`.
      layout: how the run uses its devices.
      lengths: from a call's steps to those its program has room for.
      growth: as of `Resident`.
    """

    examples: Examples
    make_order: MakeOrder
    layout: Layout
    lengths: Callable[[int], int]
    growth: Any = None

    def serve(self, keys: Key[Array, "r"], calls: Iterable[Call]) -> Iterator[Fed]:
        """Yields each call with the examples of its steps.

        Batches of an epoch are gathered in threads, and the next order is drawn while
        it lasts.
        """
        for number, group in itertools.groupby(calls, key=lambda call: call.epoch):
            order = sharding.on_host(self.layout, self.make_order(keys, number))
            self.make_order(keys, number + 1)  # dispatched now, and kept
            listed = list(group)
            read = self._read(order, listed)
            try:
                for call, parts in zip(listed, read, strict=True):
                    placed = sharding.by_batch(self.layout, parts)
                    yield call, Data(*placed, growth=self.growth)
            finally:
                read.close()  # also where training stops midway

    def _read(self, order: np.ndarray, calls: Sequence[Call]) -> Any:
        import grain  # a second, that other runs need not wait for

        gather = functools.partial(self.gather, order)
        ahead = grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD)
        return iter(grain.MapDataset.source(calls).map(gather).to_iter_dataset(ahead))

    def gather(self, order: Int[np.ndarray, "r n"], call: Call) -> list[Examples]:
        """Copies what a call trains on, for each device of this process its share.

        What other processes train on is not looked at.

        Returns:
          Images [r s b h w c] and labels [r s b] of each device's replicates.
        """
        stop = call.first + call.length * call.batch_size
        rows = order[:, call.first : stop].reshape(
            len(order), call.length, call.batch_size
        )
        room = self.lengths(call.length)

        def take(mine: np.ndarray, leaf: np.ndarray) -> np.ndarray:
            if room == call.length:
                return leaf[mine]
            r, s, b = mine.shape
            into = np.zeros((r, room, b, *leaf.shape[1:]), leaf.dtype)
            into[:, :s] = leaf[mine]
            return into

        return [
            Examples(*(take(mine, leaf) for leaf in self.examples))
            for mine in sharding.shares(self.layout, rows)
        ]


def choose(examples: Examples, layout: Layout) -> Where:
    """Chooses where a set lies: on every device, divided over devices, or on the host.

    Its images, or the part of them, must take at most a quarter of the memory that JAX
    may use of a device. Where a device does not say how much that is, as CPUs do not,
    all sets fit.
    """
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
    layout: Layout, examples: Examples, *, first: int, count: int
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
    return sharding.everywhere(layout, some)


def make_feed(
    examples: Examples,
    make_order: MakeOrder,
    *,
    layout: Layout,
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
        return Streamed(examples, make_order, layout, lengths, growth)
    place = sharding.by_data if where == "sharded" else sharding.everywhere
    placed = place(layout, tuple(examples))
    return Resident(*placed, make_order, growth)
