"""Writes the records and tickets with which a stage ends."""

from jaxsparse import transforms
from jaxsparse.lottery import tickets
from jaxsparse.metrics_log import Record
from jaxsparse.runner import flop_records, instability, level_summary, records
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.stages import CHILDREN, PRETRAINING
from jaxsparse.training.profiling import CostTracker
from jaxsparse.training.stage_run import StageRun, read_records
from jaxsparse.training.state import TrainState


def write(
    saved: SavedStates,
    run: StageRun,
    state: TrainState,
    *,
    seconds: float,
    cost: CostTracker,
) -> list[Record]:
    """Writes the records of a stage's end, and its ticket if the method makes one.

    Args:
      saved: states of earlier stages.
      run: the stage that has just been trained.
      state: its final state, in the checkpoint layout.
      seconds: time spent on the stage.
      cost: compilations and memory since the stage began.

    Returns:
      The records that were written while the stage trained.

    Raises:
      LostState: if a state to compare with is missing or corrupt.
    """
    stage = run.stage
    rows = read_records(run.run_dir, stage=stage.name)
    if stage.variant not in (PRETRAINING, CHILDREN):
        _write_level(saved, run, state, rows)
    if stage.variant != CHILDREN:
        account = saved.experiment.task.flops
        run.write(flop_records.make(account, run, state, saved.plan))
    run.write(instability.records(saved, run, state))
    # The record of kind "timing" must be the last of a stage: `records.find_lost` takes
    # its absence as a sign that records are lost.
    rate = (stage.stop - stage.start) / seconds
    time = {"seconds": seconds, "steps_per_second": rate}
    run.write([run.record("timing", stage.stop) | time | cost.so_far()])
    return rows


def _write_level(
    saved: SavedStates, run: StageRun, state: TrainState, rows: list[Record]
) -> None:
    """Writes one record of kind "level" per replicate, and final masks to files.

    Args:
      saved: states of earlier stages.
      run: the stage that has just been trained.
      state: its final state, in the checkpoint layout.
      rows: records that were written while the stage trained.
    """
    task, settings = saved.experiment.task, run.trainer.records
    masks = transforms.local_masks(state.opt_state)
    levels = level_summary.level_records(
        rows,
        masks=masks,
        start_step=run.stage.start,
        count_effective=task.count_effective,
        dynamic_masks=settings.dynamic_masks is not None,
        anneal_end_step=settings.anneal_end_step,
    )
    failed = records.failed_replicates(saved.run_dir, saved.plan, run.stage)
    for row in levels:
        if row["replicate"] in failed:
            row["failed"] = True  # its results are meaningless
    run.write(levels)
    level_summary.warn_of_empty_layers(levels, stage=run.stage.name)
    if task.first_masks is not None:
        tickets.save_final(saved.run_dir.tickets, masks)
