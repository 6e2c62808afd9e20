"""Many steps in one call: the plan of calls, and the programs that run them.

Calls end where the host has something to do: at the end of an epoch, at an
evaluation, and every `steps_per_call` steps of an epoch. The plan is a function of
the config alone, never of where a run was resumed, because programs of other lengths
may differ in the last bits.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from jaxsparse.training import sharding
from jaxsparse.training import state as state_lib
from jaxsparse.training.sharding import DATA, REPLICATE, Layout
from jaxsparse.training.state import TrainState
from jaxsparse.training.steps import Tally, TrainStep


class Call(NamedTuple):
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


class Epoch(NamedTuple):
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
    start: int, stop: int, *, epoch: Epoch, steps_per_call: int, evaluate_every: int
) -> Iterator[Call]:
    """Yields the calls that take the clock from `start` to `stop`.

    Args:
      start: present clock, in updates.
      stop: clock at the end.
      epoch: what an epoch consists of.
      steps_per_call: a call ends at each multiple of this within an epoch.
      evaluate_every: a call ends at each multiple of this of the clock; 0 for never.

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
            length = min(full - within, to_call, to_eval, stop - step)
            size = epoch.batch_size
        yield Call(step, length, number, within * epoch.batch_size, size)
        step += length


Program = Callable[..., tuple[TrainState, Tally]]


def over_replicates(
    fn: Callable[..., Any], *, replicates: int, in_axes: Any, out_axes: Any
) -> Callable[..., Any]:
    """Maps a function over replicates by vmap; a single one is not batched at all.

    Batched convolutions and products are other, slower programs than plain ones, so
    one replicate should not pay for the axis.
    """
    if replicates > 1:
        return jax.vmap(fn, in_axes=in_axes, out_axes=out_axes)

    def pick(axis: Any, part: Any, change: Callable[[Any], Any]) -> Any:
        return part if axis is None else jax.tree.map(change, part)

    def one(*args: Any) -> Any:
        inputs = [
            jax.tree.map(
                lambda axis, part: pick(axis, part, lambda leaf: leaf[0]),
                axes,
                arg,
                is_leaf=lambda axis: axis is None,
            )
            for axes, arg in zip(in_axes, args, strict=True)
        ]
        return jax.tree.map(
            lambda axis, part: pick(axis, part, lambda leaf: leaf[None]),
            out_axes,
            fn(*inputs),
            is_leaf=lambda axis: axis is None,
        )

    return one


def make_programs(
    train_step: TrainStep, like: TrainState, *, layout: Layout
) -> Callable[[int, int], Program]:
    """Makes the compiled functions that run calls of a plan.

    Args:
      train_step: what `steps.make_train_step` made with the layout's `batch_axis`.
      like: a state in the form of files; only structure and shapes are looked at.
      layout: how the run uses its devices.

    Returns:
      `programs(length, batch_size)`, which returns, always the same for the same
      arguments, a function `(state, images, labels, order, keys, first)` to the next
      state, in the buffers of the old one, and the tallies of each step [length r].
    """
    # Each device runs this on its part, the same under jit as under pmap.
    replicates = layout.replicates // layout.mesh.shape[REPLICATE]
    shares = layout.data_devices
    axes = state_lib.replicate_axes(like)

    def run(
        state: TrainState,
        images: Any,
        labels: Any,
        order: Int[Array, "r n"],
        keys: Key[Array, "r"],
        first: Int[Array, ""],
        *,
        length: int,
        batch_size: int,
    ) -> tuple[TrainState, Tally]:
        share = batch_size // shares
        offset = jax.lax.axis_index(DATA) * share if shares > 1 else 0
        places = offset + jnp.arange(share, dtype=jnp.int32)

        def one(
            state: TrainState, rows: Int[Array, "b"], key: Key[Array, ""]
        ) -> tuple[TrainState, Tally]:
            return train_step(
                state,
                jnp.take(images, rows, axis=0, mode="clip"),
                jnp.take(labels, rows, axis=0, mode="clip"),
                places=places,
                batch_size=batch_size,
                key=key,
            )

        every = over_replicates(
            one, replicates=replicates, in_axes=(axes, 0, 0), out_axes=(axes, 0)
        )

        def body(state: TrainState, index: Any) -> tuple[TrainState, Tally]:
            begin = first + index * batch_size + offset
            rows = jax.lax.dynamic_slice_in_dim(order, begin, share, axis=1)
            return every(state, rows, keys)

        if length == 1:
            state, tally = body(state, 0)
            return state, jax.tree.map(lambda leaf: leaf[None], tally)
        return jax.lax.scan(body, state, jnp.arange(length, dtype=jnp.int32))

    @functools.cache
    def programs(length: int, batch_size: int) -> Program:
        call = functools.partial(run, length=length, batch_size=batch_size)
        if layout.mapped:
            return jax.pmap(
                call,
                axis_name=DATA,
                in_axes=(0, 0, 0, 0, 0, None),
                donate_argnums=0,
                devices=list(layout.mesh.devices.flat),
            )
        if layout.mesh.size > 1:
            # Left to divide a convolution, the compiler differs from pmap in last bits.
            states, each = sharding.state_specs(like), jax.P(REPLICATE)
            call = jax.shard_map(
                call,
                mesh=layout.mesh,
                in_specs=(states, jax.P(), jax.P(), each, each, jax.P()),
                out_specs=(states, jax.P(None, REPLICATE)),
                check_vma=False,
            )
        shardings = sharding.state_shardings(layout, like)
        return jax.jit(call, donate_argnums=0, out_shardings=(shardings, None))

    return programs


def tallies_on_host(layout: Layout, tally: Tally) -> Tally:
    """Fetches the tallies of a call as arrays [length r], waiting for it to end."""

    def fetch(leaf: Any) -> Any:
        leaf = jax.device_get(leaf)
        if not layout.mapped:
            return leaf
        if layout.data_devices > 1:
            return leaf[0]
        return leaf.transpose(1, 0, 2).reshape(leaf.shape[1], layout.replicates)

    return jax.tree.map(fetch, tally)
