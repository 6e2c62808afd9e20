"""Finds records that are lost or late, and the list of stages of a finished run."""

import collections
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from jaxsparse import metrics_log, multihost, old_names
from jaxsparse.lottery import plan as plan_lib
from jaxsparse.lottery.plan import LotteryPlan
from jaxsparse.stages import Stage, end_name, last_ends, stage_name
from jaxsparse.training import checkpoints
from jaxsparse.training.run_dir import METRICS, RunDir
from jaxsparse.training.stage_run import read_records

log = logging.getLogger(__name__)

STAGES = "stages.json"  # final checkpoints of all stages, once they have ended


def failed_replicates(run_dir: RunDir, plan: LotteryPlan, stage: Stage) -> list[int]:
    """Lists replicates with a non-finite loss in a stage or in one it depends on.

    Args:
      run_dir: output files of the run.
      plan: which stages the run has.
      stage: the stage. It depends on `lottery.plan.ancestors`, by which its masks and
        weights were found.

    Returns:
      Numbers of the replicates, increasing.
    """
    names = {each.name for each in (stage, *plan_lib.ancestors(plan, stage))}
    failed = read_records(run_dir, kind="failed")
    return sorted({row["replicate"] for row in failed if row["stage"] in names})


def find_lost(run_dir: RunDir, stages: Sequence[Stage]) -> set[str]:
    """Finds stages that have ended but whose records are incomplete, and warns of them.

    Args:
      run_dir: output files of the run.
      stages: the stages of the run.

    Returns:
      Names of the stages, the same on every process.
    """
    ends = [end_name(stage) for stage in stages]
    found = multihost.broadcast_from_primary(
        lambda: incomplete(run_dir.metrics, run_dir.checkpoints, ends)
    )
    for end, counts in found.items():
        log.warning(
            "%s: expected the records of %s, which ended, got %s; that stage is "
            "trained again, and its records are put back; to keep the old ones, stop "
            "now and restore the file",
            *(run_dir.metrics, end, counts),
        )
    return {stage_name(end) for end in found}


def incomplete(metrics: Path, directory: Path, ends: Sequence[str]) -> dict[str, str]:
    """Finds stages that have ended but whose records are incomplete.

    Args:
      metrics: path of the file of records.
      directory: directory of the checkpoints. The metadata of a checkpoint contains the
        number of records that its stage had; checkpoints of older versions lack it, and
        for these only the last record of the stage is required.
      ends: names of the final checkpoints of the stages.

    Returns:
      For each incomplete stage, under the name of its final checkpoint, a text with the
      number of records that were found and expected.
    """
    rows = metrics_log.read(metrics, fields=metrics_log.FIELDS)
    there = collections.Counter(row["stage"] for row in rows)
    # A record of kind "timing" is the last one that a stage writes.
    closed = {row["stage"] for row in rows if row["kind"] == "timing"}
    lost = {}
    for end in ends:
        if not checkpoints.exists(directory, end):
            continue
        stage = stage_name(end)
        expected = checkpoints.recorded_extra(directory, end).get("records")
        if expected is None and stage not in closed:
            lost[end] = f"{there[stage]} records without the last"
        elif expected is not None and there[stage] < expected:
            lost[end] = f"{there[stage]} of {expected} records"
    return lost


def sort(run_dir: RunDir, stages: Sequence[Stage]) -> None:
    """Moves records that were written late to the position of their stage.

    A stage that was trained again wrote its records behind those of later stages.

    Args:
      run_dir: output files of the run.
      stages: all stages, in the order in which they run.
    """
    places = {stage.name: place for place, stage in enumerate(stages)}

    def place(row: metrics_log.Record) -> int:
        return places.get(row["stage"], len(places))

    multihost.on_primary(lambda: metrics_log.sort(run_dir.metrics, key=place))


def write_stages(run_dir: RunDir, stages: Sequence[Stage]) -> None:
    """Lists the final checkpoints of a finished run in a file, for `has_ended`.

    Args:
      run_dir: output files of the run.
      stages: all stages of the run, in order.
    """
    ends = [end_name(stage) for stage in stages]

    def write() -> None:
        if _read_ends(run_dir.folder) != ends:
            text = json.dumps(ends) + "\n"
            metrics_log.write_atomically(run_dir.folder / STAGES, text)

    multihost.on_primary(write)


def has_ended(workdir: Path, *, levels: int) -> bool:
    """Returns whether all stages of a run have ended, without opening a checkpoint.

    Args:
      workdir: the run directory. A run that has finished lists the final checkpoints of
        its stages there.
      levels: number of levels that the run should have. A run that finished with fewer
        levels has not ended.
    """
    ends, folder = _read_ends(workdir), workdir / "checkpoints"
    if not set(ends) & set(last_ends(levels)):
        return False
    if not all(checkpoints.exists(folder, end) for end in ends):
        return False
    return not incomplete(workdir / METRICS, folder, ends)


def _read_ends(workdir: Path) -> list[str]:
    """Reads the list of final checkpoints; empty if it is missing or damaged."""
    try:
        path = old_names.find_file(workdir, STAGES)
        return list(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return []
