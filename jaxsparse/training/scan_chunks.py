"""Compiles the functions that run the chunks of a plan, many steps per dispatch."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxsparse.training import chunk_inputs, chunk_plan, mesh, placement, state_sharding
from jaxsparse.training import state as state_lib
from jaxsparse.training.chunk_inputs import ChunkInputs, Where
from jaxsparse.training.mesh import DATA, REPLICATE, MeshLayout
from jaxsparse.training.state import TrainState
from jaxsparse.training.steps import MetricSums, TrainStep
from jaxsparse.training.vmap_seeds import How, over_replicates

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
        examples of the chunk's steps, padded to
        `chunk_plan.room(length, usual_length)` steps, and no order.

    Returns:
      A function `compiled_steps(length, batch_size)`. It returns the function that runs
      such a chunk, `(state, data, keys, past_solutions=None) -> (state, sums)`. Each
      program is compiled once. The state is donated. The metric sums have one entry per
      step, [r length]; in chunks shorter than usual they are [r usual_length], filled
      up with zeros.
    """
    # With sharded parameters the program is written for the whole batch, and the
    # compiler partitions it.
    shares = 1 if layout.divides else layout.data_devices
    batch = functools.partial(chunk_inputs.make_batch(layout, examples), shares)
    run_one = functools.partial(
        _run_one, train_step, batch, layout=layout, most=usual_length
    )

    @functools.cache
    def compiled(length: int, batch_size: int) -> CompiledChunk:
        one = functools.partial(run_one, length=length, batch_size=batch_size)
        return _compile(one, like, layout=layout, how=how, examples=examples)

    def compiled_steps(length: int, batch_size: int) -> CompiledChunk:
        # The shared program has the length 0.
        shared = chunk_plan.room(length, usual_length) > length
        call = compiled(0 if shared else length, batch_size)
        return functools.partial(_with_times, call, length)

    return compiled_steps


def _run_one(
    train_step: TrainStep,
    batch: Callable[..., tuple[Any, Any]],
    *args: Any,
    layout: MeshLayout,
    most: int,
    length: int,
    batch_size: int,
) -> tuple[TrainState, MetricSums]:
    """Trains one replicate for the steps of a chunk, on a device's share of batches.

    Args:
      train_step: training step of one replicate.
      batch: function of `ChunkInputs`, the index of a step, the size of the batch and
        the position of the share in it to the images and labels of the share.
      *args: the state, `ChunkInputs`, the random key, and the pair of the number of
        steps and past solutions or None.
      layout: mesh of devices and placement of arrays on it.
      most: number of rows of the metric sums where `length` is 0.
      length: number of steps; 0 for a number that is traced.
      batch_size: examples in the whole batch.
    """
    state, data, key, (times, past_solutions) = args
    shares = 1 if layout.divides else layout.data_devices
    share = batch_size // shares
    # Positions in the whole batch, not in the device's share: augmentation draws by
    # position, so its result does not depend on the number of devices.
    offset = jax.lax.axis_index(DATA) * share if shares > 1 else 0
    places = offset + jnp.arange(share, dtype=jnp.int32)

    extra = chunk_inputs.growth_batch(layout, data)
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

    # A single step outside of any loop, in which CPUs compute gradients of convolutions
    # slowly.
    if length == 1:
        state, sums = body(state, 0)
        return state, jax.tree.map(lambda leaf: leaf[None], sums)
    if length:
        return jax.lax.scan(body, state, jnp.arange(length, dtype=jnp.int32))
    return _repeat(body, state, times, most=most)


def _compile(
    run_one: Callable[..., tuple[TrainState, MetricSums]],
    like: TrainState,
    *,
    layout: MeshLayout,
    how: How,
    examples: Where,
) -> CompiledChunk:
    """Maps the steps of one replicate over replicates and devices, and compiles them.

    Each device runs `run_one` on its part of replicates and batch, under jit as under
    pmap, so that both give the same bits.

    Args:
      run_one: function of the state, the inputs and the key of one replicate, and of
        the pair of the number of steps and past solutions.
      like: a state in the checkpoint layout; only its structure and shapes are used.
      layout: mesh of devices and placement of arrays on it.
      how: how the replicates of a device are mapped.
      examples: where training examples are stored.
    """
    groups = 1 if layout.divides else layout.mesh.shape[REPLICATE]
    axes = state_lib.replicate_axes(like)
    whole = ChunkInputs(None, None, 0, None, None)
    data_axes = ChunkInputs(0, 0, None, None, None) if examples == "host" else whole
    call = over_replicates(
        run_one,
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
        # An explicit shard_map: if the compiler partitions a convolution by itself, the
        # result differs from pmap in the last bits.
        states, each = state_sharding.state_specs(layout, like), jax.P(REPLICATE)
        inputs = chunk_inputs.partition_specs(examples)
        call = jax.shard_map(
            call,
            mesh=layout.mesh,
            in_specs=(states, inputs, each, (jax.P(), each)),
            out_specs=(states, each),
            check_vma=False,
        )
    shardings = state_sharding.state_shardings(layout, like)
    sums = mesh.to_all(layout)
    return jax.jit(call, donate_argnums=0, out_shardings=(shardings, sums))


def _with_times(
    call: CompiledChunk, length: int, *args: Any, past_solutions: Any = None
) -> tuple[TrainState, MetricSums]:
    # One argument for both. With a separate argument that is None, pmap can mistake the
    # leaves of the others for the arguments, where their numbers agree, and map the
    # wrong axes.
    return call(*args, (np.int32(length), past_solutions))


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
    fetched = placement.on_host(layout, sums)
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), fetched)
