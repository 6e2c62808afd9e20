"""Runs a complete lottery-ticket experiment, and resumes it after an interruption.

A stage that has ended is trained again in two cases only: a later stage needs its
weights and their checkpoint is corrupt, or its records are lost. The repetition must
then yield the same bits. `stages` describes the stages.
"""

import collections
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Array, Key

from jaxsparse import metrics_log, multihost
from jaxsparse.lottery import stages
from jaxsparse.lottery.session import Session
from jaxsparse.lottery.stages import Experiment
from jaxsparse.training import checkpoints
from jaxsparse.training.state import TrainState
from jaxsparse.training.train import RunDir, Stage, Trainer

log = logging.getLogger(__name__)

ENDED = "ended.json"  # final checkpoints of all stages, once they have ended


def run(experiment: Experiment, run_dir: RunDir) -> None:
    """Runs all stages that have not ended yet.

    Args:
      experiment: the experiment.
      run_dir: files of the run. Stages that are already there are continued.

    Raises:
      Preempted: if a stop was requested; everything is saved.
      NonFiniteLoss: if a loss is NaN or infinite.
      ValueError: if the files there cannot have been written by this experiment.
      OSError: if a file cannot be written.
    """
    session = Session(experiment, run_dir)
    every = list(stages.every(experiment))
    ends = [stages.end_name(stage) for stage in every]
    lost = multihost.broadcast_from_primary(
        lambda: _lost_records(run_dir.metrics, run_dir.checkpoints, ends)
    )
    for name, found in lost.items():
        log.warning(
            "%s: has %s of %s, which ended; that stage is trained again, and they are "
            "put back; to keep what was there, stop now and restore the file",
            *(run_dir.metrics, found, name),
        )
    for stage in every:
        put_back = stages.end_name(stage) in lost
        ended = checkpoints.exists(run_dir.checkpoints, stages.end_name(stage))
        if put_back or not ended:
            session.train(stage, put_back=put_back)
        # Also for stages that ended in earlier sessions: those may have been killed
        # before this.
        session.tidy(stage)

    # A stage that was trained again, here or in an earlier session, wrote its records
    # behind those of later stages.
    multihost.on_primary(lambda: _sort(run_dir.metrics, every))

    # `has_ended` relies on this list to recognize a finished run without a config.
    def write() -> None:
        if _read_ends(run_dir.metrics.parent) != ends:
            text = json.dumps(ends) + "\n"
            metrics_log.write_atomically(run_dir.metrics.with_name(ENDED), text)

    multihost.on_primary(write)


def _lost_records(
    metrics: Path, directory: Path, ends: Sequence[str]
) -> dict[str, str]:
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
    # A record of kind "time" is the last one that a stage writes.
    closed = {row["stage"] for row in rows if row["kind"] == "time"}
    lost = {}
    for end in ends:
        if not checkpoints.exists(directory, end):
            continue
        stage = stages.stage_name(end)
        wanted = checkpoints.recorded_extra(directory, end).get("records")
        if wanted is None and stage not in closed:
            lost[end] = f"{there[stage]} records, and not the last,"
        elif wanted is not None and there[stage] < wanted:
            lost[end] = f"{there[stage]} of {wanted} records"
    return lost


def _sort(metrics: Path, every: Sequence[Stage]) -> None:
    """Moves records that were written late to the position of their stage.

    Args:
      metrics: path of the file of records.
      every: all stages, in the order in which they run.
    """
    places = {stage.name: place for place, stage in enumerate(every)}
    metrics_log.sort(metrics, key=lambda row: places.get(row["stage"], len(places)))


def has_ended(workdir: Path, *, levels: int) -> bool:
    """Returns whether all stages of a run have ended, without opening a checkpoint.

    Args:
      workdir: the run directory. A run that has finished lists the final checkpoints of
        its stages there.
      levels: number of levels that the run should have. A run that finished with fewer
        levels has not ended.
    """
    ends = _read_ends(workdir)
    folder = workdir / "checkpoints"
    last = f"level_{levels:02d}/{stages.TICKET}/last"
    if last not in ends or not all(checkpoints.exists(folder, end) for end in ends):
        return False
    return not _lost_records(workdir / "metrics.jsonl", folder, ends)


def _read_ends(workdir: Path) -> list[str]:
    """Reads the list of final checkpoints; empty if it is missing or damaged."""
    try:
        return list(json.loads((workdir / ENDED).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return []


def beginning(
    experiment: Experiment, run_dir: RunDir, stage: Stage
) -> tuple[Trainer, TrainState, Key[Array, "r"]]:
    """Returns what a stage of an existing run was trained with and from.

    Nothing is written to the run directory.

    Args:
      experiment: the experiment of the run.
      run_dir: files of the run; final states of earlier stages are read from there.
      stage: one of the stages of `stages.every`.

    Returns:
      The trainer of the stage; its initial state, in the checkpoint layout (leaves lead
      with the replicate axis, counters are scalars); and the keys of its example order
      and augmentation [r].

    Raises:
      ValueError: if the state of an earlier stage is missing or corrupt.
    """
    session = Session(experiment, run_dir, writes=False)
    trainer = session.anchored(stage, session.trainer(stage))
    return trainer, session.begin(stage), session.keys(stage)


def done(experiment: Experiment, run_dir: RunDir) -> int:
    """Returns the number of stages that have ended.

    Args:
      experiment: the experiment.
      run_dir: files of the run.
    """
    return sum(
        checkpoints.exists(run_dir.checkpoints, stages.end_name(stage))
        for stage in stages.every(experiment)
    )
