"""Hashes of the files that a run starts from."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxsparse.data.data_pruning import score_files
from jaxsparse.factory import dense_run
from jaxsparse.factory import pretraining as pretraining_lib
from jaxsparse.factory.trained_run import DENSE
from jaxsparse.factory.warm_start_checks import is_ticket_file
from jaxsparse.runner import old_runs


def recorded_hashes(config: ConfigDict, workdir: Path) -> dict[str, str | None]:
    """Returns the hashes of the files that a run starts from.

    These are checkpoints and the scores of examples. No checkpoint is opened: its hash
    is in its metadata.

    Args:
      config: a validated config.
      workdir: the run directory, to which other paths are relative.

    Returns:
      Hashes by name of the checkpoint or file; None for a missing one.
    """
    c = config.warm_start
    of_masks = [c.masks] if c.masks and not is_ticket_file(c.masks) else []
    ticket = c.masks_run or c.run
    dense = [DENSE] if c.align else []
    found = _hashes(workdir, c.run, [c.weights, *dense] if c.weights else [])
    for name, held in _hashes(workdir, ticket, [*of_masks, *dense]).items():
        # Of the same name in two runs, that of the ticket gets the path of its run.
        found[f"{c.masks_run}/{name}" if c.masks_run else name] = held
    found = dict(sorted(found.items()))
    found |= dense_run.recorded_hashes(config, workdir)
    scores = pretraining_lib.score_file(config, workdir)
    if scores is not None:
        held = score_files.digest(scores) if scores.is_file() else None
        found[config.pretraining.scores] = held
    return found


def _hashes(workdir: Path, folder: str | None, names: list[str]) -> dict[str, Any]:
    """Returns the hashes of checkpoints of another run by name; None for missing."""
    directory = (workdir / (folder or "")).resolve() / "checkpoints"
    return {name: old_runs.recorded_hash(directory, name) for name in names}
