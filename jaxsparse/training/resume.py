"""Finds the step from which a stage that was interrupted is resumed."""

import logging
from pathlib import Path
from typing import NamedTuple

from jaxsparse import metrics_log, multihost
from jaxsparse.stages import Stage
from jaxsparse.training import checkpoints
from jaxsparse.training.metric_sums import Totals
from jaxsparse.training.run_dir import RunDir
from jaxsparse.training.state import TrainState

log = logging.getLogger(__name__)

# Kinds of records written while a stage trains. A stage that resumes keeps those up to
# its checkpoint and cuts all others: records of other kinds are written at its end.
_KINDS = ("train", "eval", "mask_stats", "gradient_norm", "mask_update", "failed")


class Resumed(NamedTuple):
    """Where a stage starts or continues.

    Attributes:
      state: the state, in the checkpoint layout.
      totals: training metrics since the last record; None if there are none.
      seconds: time spent on the stage in earlier sessions.
    """

    state: TrainState
    totals: Totals | None = None
    seconds: float = 0.0


def resume(fresh: TrainState, stage: Stage, run_dir: RunDir) -> Resumed:
    """Finds the latest usable checkpoint of a stage and cuts the records after it.

    Args:
      fresh: state the stage starts from if it has no usable checkpoint; also gives
        structure, shapes and placement of the state to load.
      stage: the stage to resume.
      run_dir: output files of the run.

    Returns:
      The state of the checkpoint and what was saved with it; `fresh` without one.
    """
    for name in checkpoints.within(run_dir.checkpoints, stage.name):
        saved = checkpoints.load(run_dir.checkpoints, name, fresh)
        if saved is None:
            continue
        step, extra = int(saved.state.step), saved.extra
        # Fewer records than the checkpoint counts: the metrics file lost lines.
        # Training resumes from an earlier checkpoint, which writes the lost records
        # again. Checkpoints of older versions do not store the number of records.
        found, expected = _count(run_dir, stage, step), extra.get("records", 1)
        if found < expected or not {"sums", "seconds"} <= extra.keys():
            log.warning(
                "%s: expected %d records before checkpoint %s, got %d; training "
                "resumes from an earlier checkpoint, which writes them again",
                *(run_dir.metrics, expected, name, found),
            )
            checkpoints.delete(run_dir.checkpoints, name)
            continue
        _cut(run_dir, stage, step)
        sums = extra["sums"]
        return Resumed(saved.state, sums and Totals(*sums), extra["seconds"])
    _cut(run_dir, stage, -1)
    return Resumed(fresh)


def _is_until(row: metrics_log.Record, step: int) -> bool:
    """Returns whether a record of a stage was written while it trained to a step."""
    return row["kind"] in _KINDS and row["step"] <= step


def _count(run_dir: RunDir, stage: Stage, step: int) -> int:
    """Counts the records that a stage has written up to a step."""

    def count() -> int:
        rows = run_dir.records.read(stage=stage.name)
        return sum(_is_until(row, step) for row in rows)

    return multihost.broadcast_from_primary(count)


def _cut(run_dir: RunDir, stage: Stage, step: int) -> None:
    """Deletes the records and saved states of a stage that come after a step.

    Records of kinds that are written at the end of a stage are deleted too.

    Args:
      run_dir: output files of the run.
      stage: the stage that is resumed.
      step: training step of the resumed state; -1 deletes everything of the stage.
    """

    def stays(row: metrics_log.Record) -> bool:
        return _is_until(row, step)

    multihost.on_primary(lambda: run_dir.records.keep_only(stage.name, stays))
    # `checkpoints.save` rejects a state that differs from the saved one of the same
    # name. On devices that are not bitwise reproducible, a repeated state may differ.
    saved = checkpoints.within(run_dir.checkpoints, str(Path("kept") / stage.name))
    for name in saved:
        if int(name.rpartition("step_")[2]) > step:
            checkpoints.delete(run_dir.checkpoints, name)
