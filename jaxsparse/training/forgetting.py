"""Replays training to count the forgetting events of each training example.

The chunks are those of `train.fit`, so that training yields the same weights. Nothing
is evaluated, recorded or saved. The trainer's steps must be made with
`per_example=True`, see `steps.make_train_step`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Key

from jaxsparse import multihost
from jaxsparse.data.data_pruning import forgetting as forgetting_lib
from jaxsparse.training import (
    placement,
    preemption,
    scan_chunks,
    state_sharding,
    train,
)
from jaxsparse.training.chunk_plan import ScanChunk
from jaxsparse.training.state import TrainState
from jaxsparse.training.trainer import Trainer


class ForgettingResult(NamedTuple):
    """Result of replaying training.

    Attributes:
      state: final training state, in the checkpoint layout: leaves lead with the
        replicate axis, counters are scalars.
      events: forgetting statistics of every example, each leaf [r n].
    """

    state: TrainState
    events: forgetting_lib.State


def init(replicates: int, examples: int) -> forgetting_lib.State:
    """Makes the forgetting statistics before training.

    Args:
      replicates: number of replicates, r.
      examples: number of training examples, n.

    Returns:
      Statistics in which no example was visited, learned or forgotten, [r n] each.
    """
    one = forgetting_lib.init(examples)
    return jax.tree.map(lambda leaf: jnp.tile(leaf, (replicates, 1)), one)


def count_forgetting(
    trainer: Trainer,
    fresh: TrainState,
    events: forgetting_lib.State,
    *,
    stop: int,
    keys: Key[Array, "r"],
) -> ForgettingResult:
    """Trains and counts how often each example is forgotten.

    Args:
      trainer: settings and compiled functions of the run; its steps return the
        correctness of each example.
      fresh: initial state in the checkpoint layout: leaves lead with the replicate
        axis, counters are scalars. Training starts at its step.
      events: forgetting statistics so far, each leaf [r n]; its buffers are donated.
      stop: training step at which to stop.
      keys: one typed random key per replicate [r], from which the order of the examples
        and the augmentation are derived.

    Returns:
      The final state, and the forgetting statistics of all examples.

    Raises:
      NonFiniteLoss: if a loss is NaN or infinite.

    References:
      Toneva, Sordoni, Tachet des Combes, Trischler, Bengio, Gordon. An Empirical Study
      of Example Forgetting during Deep Neural Network Learning. 2019. arXiv:1812.05159,
      algorithm 1.
    """
    layout, step = trainer.layout, int(fresh.step)
    # A copy, because the first chunk donates its buffers and the caller keeps `fresh`.
    state = state_sharding.shard_state(layout, multihost.copy(fresh))
    order_keys, draw_keys = train.data_keys(layout, keys)
    calls = train.plan_chunks(trainer, step, stop)
    for call, data in trainer.feed.iterate(order_keys, calls):
        program = trainer.compiled_steps(call.length, call.batch_size)
        state, sums = program(
            state, data, draw_keys, past_solutions=trainer.past_solutions
        )
        # Cached by the feed: the order with which the chunk was trained.
        order = trainer.feed.make_order(order_keys, call.epoch)
        on_host = scan_chunks.sums_on_host(layout, sums)
        _check_finite(on_host.loss[: call.length], call)
        rows = _rows(call, placement.on_host(layout, order), on_host.correct.shape)
        events = _take_in(events, rows, on_host.correct)
    return ForgettingResult(state_sharding.gather_state(layout, state), events)


def _rows(
    call: ScanChunk, order: np.ndarray, shape: tuple[int, ...]
) -> Int32[np.ndarray, "s r b"]:
    """Lists the example indices that each step of a chunk visits.

    Args:
      call: the chunk.
      order: example indices in the order of the epoch, [r n].
      shape: shape [s r b] of the chunk's correctness, whose s counts the padding steps
        of the compiled function.

    Returns:
      Example indices; -1 for padding steps, which were not run.
    """
    seen = order[:, call.first : call.first + call.length * call.batch_size]
    seen = seen.reshape(len(order), call.length, call.batch_size)
    # Negative rows are ignored by `forgetting.update`.
    rows = np.full(shape, -1, np.int32)
    rows[: call.length] = seen.swapaxes(0, 1)
    return rows


@functools.partial(jax.jit, donate_argnums=0)
def _take_in(
    events: forgetting_lib.State, rows: Any, correct: Any
) -> forgetting_lib.State:
    """Updates the forgetting statistics with a chunk's visits [s r b], in order."""

    def one(
        events: forgetting_lib.State, visit: Any
    ) -> tuple[forgetting_lib.State, None]:
        return jax.vmap(forgetting_lib.update)(events, *visit), None

    return jax.lax.scan(one, events, (rows, correct))[0]


def _check_finite(loss: np.ndarray, call: ScanChunk) -> None:
    """Raises `NonFiniteLoss` for the first step of a chunk with a non-finite loss."""
    bad = np.argwhere(~np.isfinite(loss))
    if len(bad):
        raise preemption.NonFiniteLoss(
            f"update {call.step + bad[0][0]}: the training loss of replicate "
            f"{bad[0][1]} is not finite; try a lower config.schedule.learning_rate"
        )
