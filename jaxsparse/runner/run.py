"""Runs all stages of an experiment, and resumes it after an interruption.

A stage that has ended is trained again in two cases only: another stage needs a state
that it saved and the checkpoint is corrupt, or its records are lost. The repetition
must then yield the same bits.
"""

import collections
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from jaxsparse import multihost
from jaxsparse.lottery import plan as plan_lib
from jaxsparse.runner import (
    dense_run,
    end_records,
    instability,
    level_summary,
    old_runs,
    records,
)
from jaxsparse.runner.experiment import Experiment
from jaxsparse.runner.masks import stage_masks
from jaxsparse.runner.saved_states import LostState, SavedStates
from jaxsparse.runner.start import stage_keys, stage_trainer, start_state
from jaxsparse.stages import PRETRAINING, Stage, end_name
from jaxsparse.training import checkpoints, profiling, state_sharding, train
from jaxsparse.training.record_index import RecordIndex
from jaxsparse.training.run_dir import RunDir
from jaxsparse.training.stage_run import StageRun


def run(experiment: Experiment, run_dir: RunDir) -> None:
    """Runs all stages that have not ended yet.

    Args:
      experiment: the parts of the run.
      run_dir: output files of the run. Stages that are already there are continued.

    Raises:
      Preempted: if a stop was requested; everything is saved.
      NonFiniteLoss: if a loss is NaN or infinite.
      ValueError: if the files there cannot have been written by this experiment.
      OSError: if a file cannot be written.
    """
    run_dir = run_dir._replace(index=RecordIndex(run_dir.metrics))
    if experiment.dense_run is not None:
        # Before the initial state is made, which is taken too.
        level_0 = list_stages(experiment, run_dir)[0]
        taken = StageRun(experiment.trainer, level_0, run_dir)
        dense_run.take(experiment.dense_run, taken)
    saved = SavedStates(experiment, run_dir)
    stages = plan_lib.stages(saved.plan)
    lost_records = records.find_lost(run_dir, stages)
    repeated = set(lost_records)  # names of stages that ended and are trained again
    requested: set[tuple[str, str]] = set()  # stages, and lost states they needed
    todo = collections.deque(stages)
    while todo:
        stage = todo.popleft()
        if stage.name in repeated or not saved.has_ended(stage):
            try:
                train_stage(saved, stage, put_back=stage.name in lost_records)
            except LostState as lost:
                # Both go back on the list, first the stage that saves the lost state.
                todo.extendleft((stage, lost.stage))
                repeated.add(lost.stage.name)
                _check_progress(requested, stage, lost)
                continue
            repeated.discard(stage.name)
            lost_records.discard(stage.name)
        # Also for stages that ended in earlier sessions: those may have been killed
        # before this.
        saved.delete_unneeded(stage)
    records.sort(run_dir, stages)
    records.write_stages(run_dir, stages)


def _check_progress(
    requested: set[tuple[str, str]], stage: Stage, lost: LostState
) -> None:
    """Checks that a lost state was not written again just before.

    Args:
      requested: pairs of a stage and a lost checkpoint that it needed; the present
        pair is added.
      stage: the stage that needs the state.
      lost: the lost state.

    Raises:
      ValueError: if the state was lost before, and training the stage that saves it
        again did not help.
    """
    pair = (stage.name, lost.name)
    if pair in requested:
        raise ValueError(
            f"checkpoint {lost.name}: expected what {stage.name} starts with, got "
            "nothing that can be read, though it was just written; is the disk full?"
        ) from lost
    requested.add(pair)


def train_stage(saved: SavedStates, stage: Stage, *, put_back: bool = False) -> None:
    """Trains a stage to its end, writes its records, and saves its final state.

    Args:
      saved: states of earlier stages.
      stage: the stage.
      put_back: whether the stage has ended before and its records are lost. The records
        are then written to the metrics file again.

    Raises:
      LostState: if a state that the stage needs is missing or corrupt.
      Preempted: if a stop was requested; everything is saved.
      NonFiniteLoss: if a loss is NaN or infinite.
    """
    cost = profiling.CostTracker()
    trainer = stage_trainer(saved, stage)
    compared = instability.compared_stage(saved, stage)
    if compared is not None:
        saved.end_of(compared)  # raises before training if it is lost
    masks = stage_masks(saved, stage)
    start = start_state(saved, stage, masks)
    run_dir = _outputs(saved, stage, put_back=put_back)
    run = StageRun(trainer, stage, run_dir)
    with _tracing(run) as tracer:
        state, seconds = train.fit(
            trainer,
            start,
            stage=stage,
            keys=stage_keys(saved, stage),
            run_dir=run_dir,
            tracer=tracer,
        )
    if stage.variant == PRETRAINING:  # may use other devices
        layout = saved.experiment.trainer.layout
        state = state_sharding.to_checkpoint_layout(layout, state)
    rows = end_records.write(saved, run, state, seconds=seconds, cost=cost)
    # The final checkpoint comes after all records, because its existence marks the
    # stage as ended.
    saved.save_end(run, state)
    run_dir.progress.end(note=level_summary.describe(rows))


def _outputs(saved: SavedStates, stage: Stage, *, put_back: bool) -> RunDir:
    """Returns where the records of a stage are written.

    Args:
      saved: states of the run.
      stage: the stage to be trained.
      put_back: whether the stage has ended before and its records are lost.
    """
    run_dir = saved.run_dir
    if not saved.has_ended(stage):
        return run_dir
    # The metric writers received the records the first time.
    run_dir = run_dir._replace(metric_writers=(), callbacks=())
    if put_back:
        return run_dir
    # Only weights are lost. The records are in the metrics file and must not be
    # duplicated there.
    return run_dir._replace(metrics_name="trained_again.jsonl")


@contextlib.contextmanager
def _tracing(run: StageRun) -> Iterator[Any]:
    """Makes the callback that writes the profiler trace of a stage."""
    folder = run.run_dir.folder / "trace"
    if multihost.is_multiprocess():
        folder = folder / f"process_{jax.process_index()}"
    with profiling.tracing(run.trainer.loop.trace, folder) as tracer:
        yield tracer


def list_stages(experiment: Experiment, run_dir: RunDir) -> list[Stage]:
    """Lists the stages of a run, with the names that its directory uses.

    Args:
      experiment: the parts of the run.
      run_dir: output files of the run.
    """
    plan = old_runs.with_recorded_names(experiment.plan, run_dir.folder)
    return plan_lib.stages(plan)


def count_ended(stages: Sequence[Stage], run_dir: RunDir) -> int:
    """Returns the number of stages that have ended.

    Args:
      stages: stages of a run.
      run_dir: output files of the run.
    """
    ends = (end_name(stage) for stage in stages)
    return sum(checkpoints.exists(run_dir.checkpoints, end) for end in ends)
