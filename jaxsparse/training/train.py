"""Trains one stage of a run from its start step to its stop step.

`fit` dispatches chunks of compiled steps and calls a list of callbacks after each: they
measure, evaluate, write records and save checkpoints. Which state a stage starts from,
and what its final state is used for, is decided in `runner`.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from jaxsparse import multihost
from jaxsparse.stages import Stage
from jaxsparse.training import chunk_plan, placement, resume, state_sharding
from jaxsparse.training.checkpointer import Checkpointer, save_for_analysis
from jaxsparse.training.chunk_plan import ScanChunk
from jaxsparse.training.evaluator import Evaluator
from jaxsparse.training.mesh import MeshLayout
from jaxsparse.training.metric_sums import SumBuffer
from jaxsparse.training.probe import MetricBuffer
from jaxsparse.training.run_dir import Callback, RunDir
from jaxsparse.training.stage_run import StageRun
from jaxsparse.training.state import TrainState
from jaxsparse.training.trainer import Trainer


def fit(
    trainer: Trainer,
    fresh: TrainState,
    *,
    stage: Stage,
    keys: Key[Array, "r"],
    run_dir: RunDir,
    tracer: Callback | None = None,
) -> tuple[TrainState, float]:
    """Trains a stage from its latest intact checkpoint, or from `fresh` without one.

    Args:
      trainer: settings and compiled functions of the run.
      fresh: initial state of the stage in the checkpoint layout: leaves lead with the
        replicate axis, counters are scalars. Its `step` is `stage.start`. Its buffers
        are not donated.
      stage: the interval to train.
      keys: one typed random key per replicate [r], from which the order of the examples
        and the augmentation are derived.
      run_dir: output files of the run, progress display, and the user's own callbacks.
      tracer: profiler trace of selected steps; None traces nothing.

    Returns:
      The state at `stage.stop` in the checkpoint layout, and the seconds spent on the
      stage, summed over all sessions that trained it.

    Raises:
      Preempted: if a stop was requested; a checkpoint was saved before.
      NonFiniteLoss: if a loss is NaN or infinite, after its record was written; where
        the trainer continues on such a loss, only if no replicate is left.
    """
    layout, run = trainer.layout, StageRun(trainer, stage, run_dir)
    # Checkpoints are loaded with the shardings of `fresh`.
    fresh = state_sharding.to_checkpoint_layout(layout, fresh)
    resumed = resume.resume(fresh, stage, run_dir)
    step = int(resumed.state.step)
    # A copy, because the first chunk donates its buffers and the caller keeps `fresh`.
    state = state_sharding.shard_state(layout, multihost.copy(resumed.state))
    order_keys, draw_keys = data_keys(layout, keys)
    run_dir.progress.begin(stage.name, start=stage.start, step=step, stop=stage.stop)

    is_new = step == stage.start  # a resumed stage has recorded its first step already
    sums = SumBuffer(layout, resumed.totals)
    recorded = None if is_new else step
    probe = trainer.records.probe
    measured = MetricBuffer(probe, layout, run.record, recorded_step=recorded)
    evaluate = Evaluator(run, sums, measured)
    save = Checkpointer(run, step, resumed.seconds, sums, measured, evaluate)
    del resumed  # frees the state that was loaded
    observe = (measured.maybe_measure, *([tracer] if tracer else []))
    keep = (functools.partial(save_for_analysis, run), *run_dir.callbacks)
    for callback in (*observe, *((*keep, evaluate) if is_new else ())):
        callback(step, state)
    # `evaluate.report` comes first: it writes the records of the previous evaluation,
    # while the devices work on the chunk that was just dispatched.
    callbacks = (evaluate.report, *observe, *keep, save.decide, evaluate, save)
    chunks = plan_chunks(trainer, step, stage.stop)
    for chunk, data in trainer.feed.iterate(order_keys, chunks):
        run_chunk = trainer.compiled_steps(chunk.length, chunk.batch_size)
        state, chunk_sums = run_chunk(
            state, data, draw_keys, past_solutions=trainer.past_solutions
        )
        sums.add(chunk_sums)
        step = chunk.step + chunk.length
        for callback in callbacks:
            callback(step, state)
    evaluate.report()
    return state_sharding.gather_state(layout, state), save.seconds()


def plan_chunks(trainer: Trainer, start: int, stop: int) -> Iterator[ScanChunk]:
    """Yields the chunks of steps that train from one step to another.

    Args:
      trainer: supplies the epoch, the maximum chunk length, the evaluation interval and
        the steps at which chunks must end.
      start: training step before the first chunk.
      stop: training step after the last chunk.
    """
    return chunk_plan.plan(
        start,
        stop,
        epoch=trainer.epoch,
        steps_per_call=trainer.loop.steps_per_call,
        evaluate_every=trainer.loop.evaluate_every,
        boundary_steps=boundary_steps(trainer),
    )


def boundary_steps(trainer: Trainer) -> list[int]:
    """Lists, sorted, the steps at which a state is measured, saved or traced.

    Args:
      trainer: its probe and loop settings name these steps.
    """
    probe = trainer.records.probe
    measured = probe.boundary_steps if probe else ()
    return sorted({*measured, *trainer.loop.save_at_steps, *trainer.loop.trace})


def data_keys(layout: MeshLayout, keys: Key[Array, "r"]) -> tuple[Any, Any]:
    """Derives two keys per replicate: for the example order and for augmentation.

    Args:
      layout: placement of arrays on the devices.
      keys: one typed random key per replicate [r].

    Returns:
      Keys [r] of the example order, and keys of augmentation, sharded by replicate.
    """
    order, draw = _fold_each(keys)
    return order, placement.shard_replicates(layout, draw)


@jax.jit
def _fold_each(keys: Key[Array, "r"]) -> tuple[Key[Array, "r"], Key[Array, "r"]]:
    """Folds 0 and 1 into each key."""
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    order, draw = jax.vmap(fold, in_axes=(None, 0))(keys, np.arange(2, dtype=np.uint32))
    return order, draw
