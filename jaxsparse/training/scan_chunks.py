"""Runs many training steps per dispatch: the chunk plan and the compiled functions.

A chunk is a sequence of steps that one compiled call runs. Chunks end where the host
has work to do: at the end of an epoch, at an evaluation, at a measurement, at a state
to save, and after every `steps_per_call` steps of an epoch. The plan depends on the
config alone and never on the step at which a run was resumed, because chunks of other
lengths may compile to programs that differ in the last bits.
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

# Where training examples are stored: a whole copy on every device, sharded over the
# devices that share a batch, or on the host.
Where = Literal["device", "sharded", "host"]


class ScanChunk(NamedTuple):
    """Consecutive steps of one epoch with batches of one size.

    Attributes:
      step: training step before the first step of the chunk.
      length: number of steps, at least 1.
      epoch: number of the epoch that the steps belong to, counted from 0.
      first: position of the chunk's first example in the epoch's order.
      batch_size: examples per step and replicate.
    """

    step: int
    length: int
    epoch: int
    first: int
    batch_size: int


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


class EpochSpec(NamedTuple):
    """Number of steps and batch sizes of an epoch.

    Attributes:
      steps: number of batches, including a smaller last one.
      batch_size: examples in a full batch.
      last_batch: examples in the last batch; equal to `batch_size` if it is full.
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
    """Yields the chunks that train from step `start` to step `stop`.

    Args:
      start: training step before the first chunk.
      stop: training step after the last chunk.
      epoch: number of steps and batch sizes of an epoch.
      steps_per_call: maximum chunk length; chunks end at its multiples, counted from
        the start of each epoch.
      evaluate_every: chunks end at its multiples, counted from step 0; 0 adds no ends.
      boundary_steps: further training steps, increasing, at which chunks end.

    Yields:
      Chunks without gaps between them. If `start` is the end of a chunk of an earlier
      plan with the same settings, the remaining chunks are the same as in that plan.
    """
    full = epoch.steps if epoch.last_batch == epoch.batch_size else epoch.steps - 1
    step = start
    while step < stop:
        number, within = divmod(step, epoch.steps)
        # A smaller last batch has other shapes than the rest of the epoch, and
        # therefore a chunk of its own.
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


CompiledChunk = Callable[..., tuple[TrainState, MetricSums]]


def make_chunk_fns(
    train_step: TrainStep,
    like: TrainState,
    *,
    layout: MeshLayout,
    how: How,
    usual_length: int = 0,
    examples: Where = "device",
) -> Callable[[int, int], CompiledChunk]:
    """Makes the compiled functions that run the chunks of a plan.

    Chunks of the usual length run as one `lax.scan`, without a round trip to the host.
    Chunks cut short by the end of an epoch or by a measurement have many different
    lengths. They share one program, a loop whose number of iterations is traced, so
    that not every length is compiled.

    Args:
      train_step: training step of one replicate from `steps.make_train_step`, made with
        `axis_name=layout.batch_axis`.
      like: a state in the checkpoint layout (leaves lead with the replicate axis,
        counters are scalars); only its structure and shapes are used.
      layout: mesh of devices and placement of arrays on it.
      how: how the replicates of a device are mapped: "vmap", "map" or "unroll".
      usual_length: length of the most common and longest chunks; 0 compiles a separate
        program for every length.
      examples: where training examples are stored. For "host", `ChunkInputs` holds the
        examples of the chunk's steps, padded to `room(length, usual_length)` steps, and
        no order.

    Returns:
      A function `compiled_steps(length, batch_size)`. It returns the function that runs
      such a chunk, `(state, data, keys, past_solutions=None) -> (state, sums)`. Each
      program is compiled once. The state is donated. The metric sums have one entry per
      step, [r length]; in chunks shorter than usual they are [r usual_length], filled
      up with zeros.
    """
    # Each device runs `run_one` on its part of replicates and batch, under jit as under
    # pmap, so that both give the same bits. With sharded parameters the program is
    # written for the whole batch and the compiler partitions it.
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
        times, past_solutions = more
        share = batch_size // shares
        # Positions in the whole batch, not in the device's share: augmentation draws by
        # position, so its result does not depend on the number of devices.
        offset = jax.lax.axis_index(DATA) * share if shares > 1 else 0
        places = offset + jnp.arange(share, dtype=jnp.int32)

        extra = _growth(layout, data)
        if past_solutions is not None:
            extra["past_solutions"] = past_solutions

        def body(state: TrainState, index: Any) -> tuple[TrainState, MetricSums]:
            images, labels = batch(data, index, batch_size, offset)
            state, sums = train_step(
                state_sharding.pin(layout, state),
                images,
                labels,
                places=places,
                batch_size=batch_size,
                key=key,
                **extra,
            )
            return state_sharding.pin(layout, state), sums

        if length == 1:
            state, sums = body(state, 0)
            return state, jax.tree.map(lambda leaf: leaf[None], sums)
        if length:
            return jax.lax.scan(body, state, jnp.arange(length, dtype=jnp.int32))
        return _repeat(body, state, times, most=usual_length)

    def compiled_steps(length: int, batch_size: int) -> CompiledChunk:
        shared = room(length, usual_length) > length
        call = compiled(0 if shared else length, batch_size)
        return functools.partial(_with_times, call, length)

    @functools.cache
    def compiled(length: int, batch_size: int) -> CompiledChunk:
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
            # An explicit shard_map: if the compiler partitions a convolution by itself,
            # the result differs from pmap in the last bits.
            states, each = state_sharding.state_specs(layout, like), jax.P(REPLICATE)
            call = jax.shard_map(
                call,
                mesh=layout.mesh,
                in_specs=(states, _specs(examples), each, (jax.P(), each)),
                out_specs=(states, each),
                check_vma=False,
            )
        shardings = state_sharding.state_shardings(layout, like)
        sums = mesh.to_all(layout)
        return jax.jit(call, donate_argnums=0, out_shardings=(shardings, sums))

    return compiled_steps


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


def _make_batch(layout: MeshLayout, examples: Where) -> Callable[..., tuple[Any, Any]]:
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


def _growth(layout: MeshLayout, data: ChunkInputs) -> dict[str, Any]:
    """Returns the batch that scores weights to grow as a keyword argument."""
    if data.growth is None:
        return {}
    if layout.divides and not len(data.growth[1]) % layout.data_devices:
        return {"growth": state_sharding.divide_batch(layout, data.growth)}
    return {"growth": data.growth}


def room(length: int, usual_length: int) -> int:
    """Returns how many steps the program for a chunk of this length has room for.

    Args:
      length: number of steps of the chunk.
      usual_length: length of the most common and longest chunks; 0 if every length has
        a program of its own.
    """
    return usual_length if 1 <= length < usual_length else length


def _specs(examples: Where) -> ChunkInputs:
    """Returns the partition specs of `ChunkInputs` for `shard_map`."""
    if examples == "host":
        by_batch = jax.P(REPLICATE, None, DATA)
        return ChunkInputs(by_batch, by_batch, None, None, jax.P())
    part = jax.P(DATA) if examples == "sharded" else jax.P()
    return ChunkInputs(part, part, jax.P(REPLICATE), jax.P(), jax.P())


def _with_times(
    call: CompiledChunk, length: int, *args: Any, past_solutions: Any = None
) -> tuple[TrainState, MetricSums]:
    # One argument for both. With a separate argument that is None, pmap can mistake the
    # leaves of the others for the arguments, where their numbers agree, and map the
    # wrong axes.
    return call(*args, (jnp.int32(length), past_solutions))


def _repeat(
    body: Callable[[TrainState, Any], tuple[TrainState, MetricSums]],
    state: TrainState,
    times: Int[Array, ""],
    *,
    most: int,
) -> tuple[TrainState, MetricSums]:
    """Runs a loop like `lax.scan` whose number of iterations is traced.

    Args:
      body: one step, `(state, index) -> (state, sums)`.
      state: state before the first step.
      times: number of steps to run, int32 scalar, at most `most`.
      most: number of rows of the returned metric sums.

    Returns:
      The state after `times` steps, and the sums of each step [most ...], zeros from
      `times` on.
    """
    like = jax.eval_shape(body, state, jnp.int32(0))[1]
    rows = jax.tree.map(lambda leaf: jnp.zeros((most, *leaf.shape), leaf.dtype), like)

    def once(
        index: Any, carry: tuple[TrainState, MetricSums]
    ) -> tuple[TrainState, MetricSums]:
        state, sums = body(carry[0], index)
        put = lambda leaf, row: leaf.at[index].set(row)  # noqa: E731
        return state, jax.tree.map(put, carry[1], sums)

    return jax.lax.fori_loop(0, times, once, (state, rows))


def sums_on_host(layout: MeshLayout, sums: Any) -> Any:
    """Fetches the metric sums of chunks, waiting for the devices.

    Args:
      layout: placement of arrays on the devices.
      sums: `MetricSums` of a chunk [r length ...], as the chunk function returned them,
        or a tree of those of several chunks.

    Returns:
      The tree with NumPy arrays [length r ...].
    """
    fetched = mesh.on_host(layout, sums)
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), fetched)
