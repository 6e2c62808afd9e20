"""Training again, to see which examples each update visits and whether they are right.

The calls are those of `loop.fit`, so that the same weights come out; nothing is
evaluated, recorded or saved. The trainer's steps must tell their examples apart, see
`per_example` of `steps.make_train_step`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Key

from jaxsparse.data.data_pruning import forgetting as forgetting_lib
from jaxsparse.training import mesh, preemption, scan_chunks, state_sharding, train
from jaxsparse.training.scan_chunks import ScanChunk
from jaxsparse.training.state import TrainState
from jaxsparse.training.train import Trainer


class ForgettingResult(NamedTuple):
    """What training again came to.

    Attributes:
      state: at the end, in the form of files.
      events: what is known of every example, each leaf [r n].
    """

    state: TrainState
    events: forgetting_lib.State


def init(replicates: int, examples: int) -> forgetting_lib.State:
    """Makes what is known before training, [r n] each; see `forgetting.init`."""
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
    """Trains, and counts how often each example is forgotten.

    Args:
      trainer: what to train with; its steps tally each example.
      fresh: state to begin with, in the form of files; the clock starts at its.
      events: what is known of every example so far; its buffers are taken.
      stop: clock at the end, in updates.
      keys: of data order and augmentation, one a replicate.

    Returns:
      The state at the end, and what is known then.

    Raises:
      NonFinite: if a loss is NaN or infinite.

    References:
      Toneva, Sordoni, Tachet des Combes, Trischler, Bengio, Gordon. An Empirical Study
      of Example Forgetting during Deep Neural Network Learning. 2019. arXiv:1812.05159,
      algorithm 1.
    """
    layout, step = trainer.layout, int(fresh.step)
    # A copy: the first call takes its buffers, and the caller keeps `fresh`.
    state = state_sharding.shard_state(layout, jax.tree.map(jnp.copy, fresh))
    order_keys, draw_keys = train.data_keys(layout, keys)
    calls = train.plan_chunks(trainer, step, stop)
    for call, data in trainer.feed.serve(order_keys, calls):
        program = trainer.programs(call.length, call.batch_size)
        state, tally = program(state, data, draw_keys, past_solutions=trainer.anchors)
        order = trainer.feed.make_order(order_keys, call.epoch)
        on_host = scan_chunks.sums_on_host(layout, tally)
        _check_finite(on_host.loss[: call.length], call)
        rows = _rows(call, mesh.on_host(layout, order), on_host.correct.shape)
        events = _take_in(events, rows, on_host.correct)
    return ForgettingResult(state_sharding.gather_state(layout, state), events)


def _rows(
    call: ScanChunk, order: np.ndarray, shape: tuple[int, ...]
) -> Int32[np.ndarray, "s r b"]:
    """Lists which examples a call visits; -1 for steps that it did not go."""
    seen = order[:, call.first : call.first + call.length * call.batch_size]
    seen = seen.reshape(len(order), call.length, call.batch_size)
    rows = np.full(shape, -1, np.int32)
    rows[: call.length] = seen.swapaxes(0, 1)
    return rows


@functools.partial(jax.jit, donate_argnums=0)
def _take_in(
    events: forgetting_lib.State, rows: Any, correct: Any
) -> forgetting_lib.State:
    """Takes in the visits [s r b] of a call, update by update."""

    def one(
        events: forgetting_lib.State, visit: Any
    ) -> tuple[forgetting_lib.State, None]:
        return jax.vmap(forgetting_lib.update)(events, *visit), None

    return jax.lax.scan(one, events, (rows, correct))[0]


def _check_finite(loss: np.ndarray, call: ScanChunk) -> None:
    bad = np.argwhere(~np.isfinite(loss))
    if len(bad):
        raise preemption.NonFiniteLoss(
            f"update {call.step + bad[0][0]}: the training loss of replicate "
            f"{bad[0][1]} is not finite; wanted training that does not diverge; try a "
            "lower config.schedule.learning_rate"
        )
