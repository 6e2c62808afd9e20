"""A whole lottery-ticket experiment, continued wherever it was stopped.

A stage that has ended is never trained again, unless a later one needs its weights
and they turn out to be corrupt; the same bits must then come out. See `stages`.
"""

import json
from pathlib import Path

from jaxtyping import Array, Key

from jaxsparse import hosts, records
from jaxsparse.lottery import stages
from jaxsparse.lottery.session import Session
from jaxsparse.lottery.stages import Experiment
from jaxsparse.training import checkpoints
from jaxsparse.training.loop import Desk, Stage, Trainer
from jaxsparse.training.state import TrainState

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
    for stage in stages.every(experiment):
        if not checkpoints.exists(desk.checkpoints, stages.end_name(stage)):
            session.train(stage)
        session.tidy(stage)
    ends = [stages.end_name(stage) for stage in stages.every(experiment)]

    def write() -> None:
        if _read_ends(desk.metrics.parent) != ends:
            text = json.dumps(ends) + "\n"
            records.write_atomically(desk.metrics.with_name(ENDED), text)

    hosts.do(write)


def has_ended(workdir: Path, *, levels: int) -> bool:
    """Says whether every stage of the run in a folder has ended; opens no checkpoint.

    Args:
      workdir: folder of the run, in which `run` lists all stages when it is through.
      levels: how many the run is to have; it may have been through with fewer.
    """
    ends = _read_ends(workdir)
    folder = workdir / "checkpoints"
    last = f"level_{levels:02d}/{stages.TICKET}/last"
    return last in ends and all(checkpoints.exists(folder, end) for end in ends)


def _read_ends(workdir: Path) -> list[str]:
    try:
        return list(json.loads((workdir / ENDED).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
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
    """
    session = Session(experiment, desk)
    trainer = session.anchored(stage, session.trainer(stage))
    return trainer, session.begin(stage), session.keys(stage)


def done(experiment: Experiment, desk: Desk) -> int:
    """Counts the stages that have ended."""
    return sum(
        checkpoints.exists(desk.checkpoints, stages.end_name(stage))
        for stage in stages.every(experiment)
    )
