"""Takes level 0 of a run from an earlier run instead of training it."""

from pathlib import Path
from typing import NamedTuple

from jaxsparse import multihost
from jaxsparse.metrics_log import Record
from jaxsparse.stages import Stage, end_name, saved_state_name
from jaxsparse.training import checkpoints
from jaxsparse.training.run_dir import RunDir
from jaxsparse.training.stage_run import StageRun, read_records


class DenseRun(NamedTuple):
    """An earlier run whose dense network is level 0 of this run.

    Attributes:
      folder: its run directory.
      stage: name of the stage of level 0 there, such as "train".
      steps: training steps within level 0 of the states that are taken.
    """

    folder: Path
    stage: str
    steps: tuple[int, ...] = ()


def checkpoint_names(dense_run: DenseRun, stage: str) -> dict[str, str]:
    """Lists the checkpoints of an earlier run that are taken.

    Args:
      dense_run: the earlier run.
      stage: name of the stage of level 0 in this run.

    Returns:
      Names in this run by names there. The last one marks level 0 as ended.

    Examples:
      >>> checkpoint_names(DenseRun(Path("dense"), "train"), "level_00/ticket")
      {'init': 'init', 'train/last': 'level_00/ticket/last'}
    """
    names = {"init": "init"}
    for step in dense_run.steps:
        there = saved_state_name(dense_run.stage, step)
        names[there] = saved_state_name(stage, step)
    return names | {f"{dense_run.stage}/last": f"{stage}/last"}


def take(dense_run: DenseRun, run: StageRun) -> None:
    """Copies checkpoints and records of level 0 from an earlier run; once only.

    Records of kind "timing" are not taken, because this run did not spend that time.

    Args:
      dense_run: the earlier run, which has been checked.
      run: stage and output files of level 0 in this run. If it has ended, nothing is
        done.

    Raises:
      ValueError: if the records of the earlier run are damaged.
      OSError: if a file cannot be read or written.
    """
    stage, run_dir = run.stage, run.run_dir
    if checkpoints.exists(run_dir.checkpoints, end_name(stage)):
        return
    run_dir.progress.begin(
        stage.name, start=stage.start, step=stage.stop, stop=stage.stop
    )
    source = RunDir(dense_run.folder).checkpoints
    *starts, end = checkpoint_names(dense_run, stage.name).items()
    for there, here in starts:
        checkpoints.copy(source, there, run_dir.checkpoints, here)
    # A killed session may have left some of the records.
    multihost.on_primary(lambda: run_dir.records.keep_only(stage.name, _nothing))
    run.write(_records(dense_run, stage))
    extra = {"records": run.sync_records()}
    checkpoints.copy(source, end[0], run_dir.checkpoints, end[1], extra=extra)
    run_dir.progress.end(note=f"taken from {dense_run.folder}")


def _records(dense_run: DenseRun, stage: Stage) -> list[Record]:
    """Reads the records of an earlier run's level 0, as those of this run's stage."""
    rows = read_records(RunDir(dense_run.folder), stage=dense_run.stage)
    return [row | {"stage": stage.name} for row in rows if row["kind"] != "timing"]


def _nothing(row: Record) -> bool:
    """Keeps no record."""
    del row
    return False
