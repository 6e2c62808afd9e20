"""Many steps in one call: the plan of calls, and the programs that run them.

Calls end where the host has something to do: at the end of an epoch, at an
evaluation, a measurement or a checkpoint that is kept, and every `steps_per_call` steps
of an epoch. The plan is a function of the config alone, never of where a run was
resumed, because programs of other lengths may differ in the last bits.
"""

import bisect
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from jaxsparse.training import mesh, state_sharding
from jaxsparse.training import state as state_lib
from jaxsparse.training.mesh import DATA, REPLICATE, MeshLayout
from jaxsparse.training.state import TrainState
from jaxsparse.training.steps import MetricSums, TrainStep
from jaxsparse.training.vmap_seeds import How, over_replicates

# Where examples are: whole on every device, divided over those that share a batch, or
# on the host.
Where = Literal["device", "sharded", "host"]


class ScanChunk(NamedTuple):
    """Consecutive steps of one epoch with batches of one size.

    Attributes:
      step: what the clock shows before the first.
      length: how many steps.
      epoch: which epoch they belong to.
      first: place of the first example in the epoch's order.
      batch_size: examples a step.
    """

    step: int
    length: int
    epoch: int
    first: int
    batch_size: int


class ChunkInputs(NamedTuple):
    """What a call trains on.

    Attributes:
      images: all training images [n h w c]; or, without an order, those of the call's
        steps [r s b h w c].
      labels: all labels [n], or those [r s b].
      order: of the examples in the call's epoch [r n]; None where they are in it.
      first: place of the call's first example in the order; None without one.
      growth: images and labels that decide what is grown, which every device has; None
        for those of the batch.
    """

    images: Any
    labels: Any
    order: Any = None
    first: Any = None
    growth: Any = None


class EpochSpec(NamedTuple):
    """What an epoch consists of.

    Attributes:
      steps: batches, counting a smaller last one.
      batch_size: examples in a full batch.
      last_batch: examples in the last one, `batch_size` if it is full.
    """

    steps: int
    batch_size: int
    last_batch: int


def plan(
    start: int,
    stop: int,
    *,
    epoch: EpochSpec,
    steps_per_call: int,
    evaluate_every: int,
    boundary_steps: Sequence[int] = (),
) -> Iterator[ScanChunk]:
    """Yields the calls that take the clock from `start` to `stop`.

    Args:
      start: present clock, in updates.
      stop: clock at the end.
      epoch: what an epoch consists of.
      steps_per_call: a call ends at each multiple of this within an epoch.
      evaluate_every: a call ends at each multiple of this of the clock; 0 for never.
      boundary_steps: a call ends at each of these readings of the clock too; growing.

    Yields:
      Calls that join without gaps. Whatever `start` is, they end where those of an
      earlier `start` end, if it lies where one of them ends.
    """
    full = epoch.steps if epoch.last_batch == epoch.batch_size else epoch.steps - 1
    step = start
    while step < stop:
        number, within = divmod(step, epoch.steps)
        if within == full:
            length, size = 1, epoch.last_batch
        else:
            to_call = steps_per_call - within % steps_per_call
            to_eval = evaluate_every - step % evaluate_every if evaluate_every else stop
            later = bisect.bisect_right(boundary_steps, step)
            to_pause = (
                boundary_steps[later] - step if later < len(boundary_steps) else stop
            )
            length = min(full - within, to_call, to_eval, to_pause, stop - step)
            size = epoch.batch_size
        yield ScanChunk(step, length, number, within * epoch.batch_size, size)
        step += length


Program = Callable[..., tuple[TrainState, MetricSums]]


def make_chunk_fns(
    train_step: TrainStep,
    like: TrainState,
    *,
    layout: MeshLayout,
    how: How,
    usual_length: int = 0,
    examples: Where = "device",
) -> Callable[[int, int], Program]:
    """Makes the compiled functions that run calls of a plan.

    A call of the usual length is a scan, which accelerators run without asking the
    host. Calls that end early, for the end of an epoch or for a measurement, have many
    lengths, and share one program that is told how often to go round.

    Args:
      train_step: what `steps.make_train_step` made with the layout's `batch_axis`.
      like: a state in the form of files; only structure and shapes are looked at.
      layout: how the run uses its devices.
      how: how a device's replicates are arranged, see `replicates`.
      usual_length: steps of most calls, and of the longest; 0 to compile a program for
        each length there is.
      examples: where they are: see `Where`. On the host, `Data` has those of the
        call's steps, as many as `room(length, usual_length)`, and no order.

    Returns:
      `programs(length, batch_size)`, which returns, always the same for the same
      arguments, a function `(state, data, keys, anchors=None)` to the next state, in
      the buffers of the old one, and the tallies of each step [r length]; in shorter
      calls than usual [r usual_length], of which the rest are zeros.
    """
    # Each device runs this on its part, the same under jit as under pmap; where weights
    # are divided, the compiler finds out the parts.
    shares = 1 if layout.divides else layout.data_devices
    groups = 1 if layout.divides else layout.mesh.shape[REPLICATE]
    axes = state_lib.replicate_axes(like)
    whole = ChunkInputs(None, None, 0, None, None)
    data_axes = ChunkInputs(0, 0, None, None, None) if examples == "host" else whole
    batch = functools.partial(_make_batch(layout, examples), shares)

    def run_one(
        state: TrainState,
        data: ChunkInputs,
        key: Key[Array, ""],
        more: tuple[Int[Array, ""], Any],
        *,
        length: int,
        batch_size: int,
    ) -> tuple[TrainState, MetricSums]:
        times, anchors = more
        share = batch_size // shares
        offset = jax.lax.axis_index(DATA) * share if shares > 1 else 0
        places = offset + jnp.arange(share, dtype=jnp.int32)

        extra = _growth(layout, data)
        if anchors is not None:
            extra["anchors"] = anchors

        def body(state: TrainState, index: Any) -> tuple[TrainState, MetricSums]:
            images, labels = batch(data, index, batch_size, offset)
            state, tally = train_step(
                state_sharding.pin(layout, state),
                images,
                labels,
                places=places,
                batch_size=batch_size,
                key=key,
                **extra,
            )
            return state_sharding.pin(layout, state), tally

        if length == 1:
            state, tally = body(state, 0)
            return state, jax.tree.map(lambda leaf: leaf[None], tally)
        if length:
            return jax.lax.scan(body, state, jnp.arange(length, dtype=jnp.int32))
        return _repeat(body, state, times, most=usual_length)

    def programs(length: int, batch_size: int) -> Program:
        shared = room(length, usual_length) > length
        call = compiled(0 if shared else length, batch_size)
        return functools.partial(_with_times, call, length)

    @functools.cache
    def compiled(length: int, batch_size: int) -> Program:
        call = over_replicates(
            functools.partial(run_one, length=length, batch_size=batch_size),
            how=how,
            replicates=layout.replicates // groups,
            in_axes=(axes, data_axes, 0, (None, 0)),
            out_axes=(axes, 0),
            axis=REPLICATE if layout.divides else None,
        )
        if layout.mapped:
            return jax.pmap(
                call,
                axis_name=DATA,
                in_axes=(0, ChunkInputs(0, 0, 0, None, 0), 0, (None, 0)),
                donate_argnums=0,
                devices=list(layout.mesh.devices.flat),
            )
        if layout.mesh.size > 1 and not layout.divides:
            # Left to divide a convolution, the compiler differs from pmap in last bits.
            states, each = state_sharding.state_specs(layout, like), jax.P(REPLICATE)
            call = jax.shard_map(
                call,
                mesh=layout.mesh,
                in_specs=(states, _specs(examples), each, (jax.P(), each)),
                out_specs=(states, each),
                check_vma=False,
            )
        shardings = state_sharding.state_shardings(layout, like)
        tallies = mesh.to_all(layout)
        return jax.jit(call, donate_argnums=0, out_shardings=(shardings, tallies))

    return programs


def _given(
    shares: int, data: ChunkInputs, index: Any, batch_size: int, offset: Any
) -> tuple[Any, Any]:
    """Takes this device's share of a step's batch, which it was given."""
    del shares, batch_size, offset
    return data.images[index], data.labels[index]


def _looked_up(
    shares: int, data: ChunkInputs, index: Any, batch_size: int, offset: Any
) -> tuple[Any, Any]:
    """Takes this device's share of a step's batch from all examples."""
    share, place = batch_size // shares, data.first + index * batch_size + offset
    rows = jax.lax.dynamic_slice_in_dim(data.order, place, share)
    images = jnp.take(data.images, rows, axis=0, mode="clip")
    return images, jnp.take(data.labels, rows, axis=0, mode="clip")


def _exchanged(
    shares: int, data: ChunkInputs, index: Any, batch_size: int, offset: Any
) -> tuple[Any, Any]:
    """Takes this device's share of a step's batch from examples that others have too.

    Every device looks up those of the whole batch that it has, and is sent the sum over
    devices for its own share: of one example and zeros, which is exact.
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


def _make_batch(layout: MeshLayout, examples: Where) -> Callable[..., tuple[Any, Any]]:
    """Chooses how a device finds its share of a step's batch."""
    if not layout.divides:
        return _BATCHES[examples]

    def divided(*args: Any) -> tuple[Any, Any]:
        find = _given if examples == "host" else _looked_up
        return state_sharding.divide_batch(layout, find(*args))

    return divided


def _growth(layout: MeshLayout, data: ChunkInputs) -> dict[str, Any]:
    """Returns the examples that decide what is grown, if there are any, for a step."""
    if data.growth is None:
        return {}
    if layout.divides and not len(data.growth[1]) % layout.data_devices:
        return {"growth": state_sharding.divide_batch(layout, data.growth)}
    return {"growth": data.growth}


def room(length: int, usual_length: int) -> int:
    """Returns how many steps the program of a call of this length has room for."""
    return usual_length if 1 <= length < usual_length else length


def _specs(examples: Where) -> ChunkInputs:
    """Returns over which axes of the mesh what a call trains on is divided."""
    if examples == "host":
        by_batch = jax.P(REPLICATE, None, DATA)
        return ChunkInputs(by_batch, by_batch, None, None, jax.P())
    part = jax.P(DATA) if examples == "sharded" else jax.P()
    return ChunkInputs(part, part, jax.P(REPLICATE), jax.P(), jax.P())


def _with_times(
    call: Program, length: int, *args: Any, past_solutions: Any = None
) -> tuple[TrainState, MetricSums]:
    # In one argument: where anchors are None, pmap takes as many leaves as arguments
    # for a leaf each, and gives them the wrong axes.
    return call(*args, (jnp.int32(length), past_solutions))


def _repeat(
    body: Callable[[TrainState, Any], tuple[TrainState, MetricSums]],
    state: TrainState,
    times: Int[Array, ""],
    *,
    most: int,
) -> tuple[TrainState, MetricSums]:
    """Does what a scan over so many steps does, the number being traced."""
    like = jax.eval_shape(body, state, jnp.int32(0))[1]
    rows = jax.tree.map(lambda leaf: jnp.zeros((most, *leaf.shape), leaf.dtype), like)

    def once(
        index: Any, carry: tuple[TrainState, MetricSums]
    ) -> tuple[TrainState, MetricSums]:
        state, tally = body(carry[0], index)
        put = lambda leaf, row: leaf.at[index].set(row)  # noqa: E731
        return state, jax.tree.map(put, carry[1], tally)

    return jax.lax.fori_loop(0, times, once, (state, rows))


def sums_on_host(layout: MeshLayout, tally: MetricSums) -> MetricSums:
    """Fetches the tallies of a call as arrays [length r ...], waiting for its end."""
    return jax.tree.map(lambda leaf: mesh.on_host(layout, leaf).swapaxes(0, 1), tally)
