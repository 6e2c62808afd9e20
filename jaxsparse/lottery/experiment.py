"""A whole lottery-ticket experiment, continued wherever it was stopped.

A stage that has ended is never trained again, unless a later one needs its weights
and they turn out to be corrupt; the same bits must then come out. See `stages`.
"""

import collections
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Array, Key

from jaxsparse import hosts, records
from jaxsparse.lottery import stages
from jaxsparse.lottery.session import Session
from jaxsparse.lottery.stages import Experiment
from jaxsparse.training import checkpoints
from jaxsparse.training.loop import Desk, Stage, Trainer
from jaxsparse.training.state import TrainState

log = logging.getLogger(__name__)

ENDED = "ended.json"  # the checkpoints with which stages end, when all have


def run(experiment: Experiment, desk: Desk) -> None:
    """Runs every stage that has not ended yet.

    Args:
      experiment: what to run.
      desk: where to write; what is found there is continued.

    Raises:
      Stopped: if asked to stop, with everything saved.
      NonFinite: if a loss is NaN or infinite.
      ValueError: if what is found there cannot be what this experiment wrote.
      OSError: if something cannot be written.
    """
    session = Session(experiment, desk)
    every = list(stages.every(experiment))
    ends = [stages.end_name(stage) for stage in every]
    lost = hosts.tell(lambda: _lost_records(desk.metrics, desk.checkpoints, ends))
    for name, found in lost.items():
        log.warning(
            "%s: has %s of %s, which ended; that stage is trained again, and they are "
            "put back; to keep what was there, stop now and restore the file",
            *(desk.metrics, found, name),
        )
    for stage in every:
        put_back = stages.end_name(stage) in lost
        ended = checkpoints.exists(desk.checkpoints, stages.end_name(stage))
        if put_back or not ended:
            session.train(stage, put_back=put_back)
            hosts.do(lambda: _sort(desk.metrics, every))  # later stages may have ended
        session.tidy(stage)

    def write() -> None:
        if _read_ends(desk.metrics.parent) != ends:
            text = json.dumps(ends) + "\n"
            records.write_atomically(desk.metrics.with_name(ENDED), text)

    hosts.do(write)


def _lost_records(
    metrics: Path, directory: Path, ends: Sequence[str]
) -> dict[str, str]:
    """Says of stages that have ended what is missing of their records.

    Args:
      metrics: file of records.
      directory: folder of checkpoints, whose notes say how many records there were.
        Older ones do not; then the last record of a stage must be there.
      ends: names of the checkpoints that stages end with.

    Returns:
      By name of the checkpoint, how many records there are and were.
    """
    rows = records.read(metrics, fields=records.FIELDS)
    there = collections.Counter(row["stage"] for row in rows)
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
    """Puts records that were written late where they were before."""
    places = {stage.name: place for place, stage in enumerate(every)}
    records.sort(metrics, key=lambda row: places.get(row["stage"], len(places)))


def has_ended(workdir: Path, *, levels: int) -> bool:
    """Says whether every stage of the run in a folder has ended; opens no checkpoint.

    Args:
      workdir: folder of the run, in which `run` lists all stages when it is through.
      levels: how many the run is to have; it may have been through with fewer.
    """
    ends = _read_ends(workdir)
    folder = workdir / "checkpoints"
    last = f"level_{levels:02d}/{stages.TICKET}/last"
    if last not in ends or not all(checkpoints.exists(folder, end) for end in ends):
        return False
    return not _lost_records(workdir / "metrics.jsonl", folder, ends)


def _read_ends(workdir: Path) -> list[str]:
    try:
        return list(json.loads((workdir / ENDED).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return []


def beginning(
    experiment: Experiment, desk: Desk, stage: Stage
) -> tuple[Trainer, TrainState, Key[Array, "r"]]:
    """Makes what a stage of a run that has been is trained with and from.

    Args:
      experiment: what was run.
      desk: where it wrote; states before the stage are read there.
      stage: one of `stages.every`.

    Returns:
      Its trainer, its first state in the form of files, and its keys of the data.
      Nothing is written there.

    Raises:
      ValueError: if a state before the stage is lost or corrupt.
    """
    session = Session(experiment, desk, writes=False)
    trainer = session.anchored(stage, session.trainer(stage))
    return trainer, session.begin(stage), session.keys(stage)


def done(experiment: Experiment, desk: Desk) -> int:
    """Counts the stages that have ended."""
    return sum(
        checkpoints.exists(desk.checkpoints, stages.end_name(stage))
        for stage in stages.every(experiment)
    )
