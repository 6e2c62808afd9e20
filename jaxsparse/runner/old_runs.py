"""Stage names of run directories, of this version and of older ones.

Older versions called the stage of ordinary training "level_00/ticket", as that of a
lottery-ticket run, and now it is "train". A run directory keeps the name with which it
began, so that its records and checkpoints stay as they are. Also a run of ordinary
training that is continued with pruning rounds keeps "train" for its level 0.
"""

from pathlib import Path

from jaxsparse import metrics_log, multihost
from jaxsparse.lottery.plan import LotteryPlan
from jaxsparse.stages import TICKET, TRAIN
from jaxsparse.training import checkpoints

LEVEL_0 = f"level_00/{TICKET}"


def with_recorded_names(plan: LotteryPlan, workdir: Path) -> LotteryPlan:
    """Returns a plan whose level 0 has the name that a run directory uses.

    Args:
      plan: which stages the run has.
      workdir: the run directory, which need not exist.
    """

    def find() -> str:
        used = [name for name in (TRAIN, LEVEL_0) if _has_stage(workdir, name)]
        return used[0] if used else ""

    return plan._replace(first_stage=multihost.broadcast_from_primary(find))


def _has_stage(workdir: Path, name: str) -> bool:
    """Returns whether a run directory has checkpoints or records of a stage."""
    if (workdir / "checkpoints" / name).is_dir():
        return True
    return metrics_log.count(workdir / "metrics.jsonl", name) > 0


def recorded_name(directory: Path, name: str) -> str:
    """Returns the name that a checkpoint of level 0 has in a run directory.

    Args:
      directory: directory of all checkpoints of a run.
      name: name of a checkpoint, such as "train/last" or "level_00/ticket/last".

    Returns:
      `name`, or its counterpart with the other name of level 0 if only that exists.
    """
    if (directory / f"{name}.json").exists():
        return name
    for one, other in ((TRAIN, LEVEL_0), (LEVEL_0, TRAIN)):
        for prefix in ("", "kept/"):
            if name.startswith(f"{prefix}{one}/"):
                found = f"{prefix}{other}/{name.removeprefix(f'{prefix}{one}/')}"
                return found if (directory / f"{found}.json").exists() else name
    return name


def recorded_hash(directory: Path, name: str) -> str | None:
    """Returns the recorded hash of a checkpoint, under either name of level 0.

    Args:
      directory: directory of all checkpoints of a run.
      name: name of a checkpoint, such as "train/last" or "level_00/ticket/last".

    Returns:
      The hash; None if the checkpoint is unfinished or its metadata is corrupt.
    """
    return checkpoints.recorded_hash(directory, recorded_name(directory, name))


def trained_levels(directory: Path, variant: str = TICKET) -> dict[int, str]:
    """Returns the final checkpoints of levels whose weights exist.

    Args:
      directory: directory of all checkpoints of a run.
      variant: "ticket", or the name of a control.

    Returns:
      Names of final checkpoints by level, increasing; level 0 is the one before any
      pruning round.
    """
    notes = sorted(directory.glob(f"level_*/{variant}/last.json"))
    if variant == TICKET:  # also the only network of ordinary training
        notes.insert(0, directory / TRAIN / "last.json")
    found = {}
    for note in notes:
        # Metadata remain when `run.keep_checkpoints` deletes the weights, which are in
        # a directory.
        if note.exists() and note.with_suffix("").is_dir():
            name = str(note.relative_to(directory).with_suffix(""))
            number = name.partition("/")[0].removeprefix("level_")
            found[0 if number == TRAIN else int(number)] = name
    return dict(sorted(found.items()))
