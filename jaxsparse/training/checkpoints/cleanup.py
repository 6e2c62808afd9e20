"""Lists and deletes checkpoints, and renames corrupt ones."""

import logging
import shutil
from pathlib import Path

from jaxsparse import multihost
from jaxsparse.training.checkpoints.metadata import metadata_path

log = logging.getLogger(__name__)


def within(directory: Path, stage: str) -> list[str]:
    """Lists the finished checkpoints saved within a stage, latest first.

    Unfinished checkpoints are skipped with a warning that names them.

    Args:
      directory: directory of all checkpoints of a run.
      stage: name of the stage, such as "level_03/ticket".

    Returns:
      Names such as "level_03/ticket/step_000001000", the same on every process.
    """

    def find() -> list[str]:
        # Matches `step_*` and `last`, the names of checkpoints within a stage.
        for folder in sorted((directory / stage).glob("[sl]*")):
            note = metadata_path(directory, f"{stage}/{folder.name}")
            half = folder.is_dir() and not note.exists()
            if half and ".corrupt-" not in folder.name:
                log.warning("checkpoint %s: half-written; passed over", folder)
        steps = [note.stem for note in (directory / stage).glob("step_*.json")]
        # Steps are padded with zeros, so the order of names is the order of steps.
        return [f"{stage}/{name}" for name in sorted(steps, reverse=True)]

    return multihost.broadcast_from_primary(find)


def delete_weights(directory: Path, name: str) -> None:
    """Deletes the content of a checkpoint and keeps its metadata.

    The metadata still shows that the checkpoint was finished, and its hash.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name of the checkpoint.
    """
    multihost.on_primary(lambda: shutil.rmtree(directory / name, ignore_errors=True))


def delete(directory: Path, name: str) -> None:
    """Deletes a checkpoint together with its metadata.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name of the checkpoint.
    """
    # The metadata first: if the deletion is interrupted, the rest counts as unfinished
    # and not as corrupt.
    multihost.on_primary(lambda: metadata_path(directory, name).unlink(missing_ok=True))
    delete_weights(directory, name)


def clear(directory: Path, stage: str) -> None:
    """Deletes all checkpoints saved within a stage that has ended.

    This includes directories without metadata, left by an interrupted write, which no
    other function finds. Directories renamed as corrupt are kept.

    Args:
      directory: directory of all checkpoints of a run.
      stage: name of the stage, such as "level_03/ticket".
    """

    def delete() -> None:
        for path in (directory / stage).glob("step_*"):
            if path.is_file():
                path.unlink()
            elif ".corrupt-" not in path.name:
                shutil.rmtree(path)

    multihost.on_primary(delete)


def put_aside(directory: Path, name: str) -> Path | None:
    """Renames the directory of a corrupt checkpoint.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name of the checkpoint.

    Returns:
      The new path; None if the checkpoint has no content.
    """
    folder, note = (directory / name).absolute(), metadata_path(directory, name)
    aside = _aside(folder) if folder.exists() else None
    if aside is not None:
        folder.rename(aside)
    if folder.name.startswith("step_"):
        # Checkpoints within a stage may be trained again from an earlier one, and the
        # result need not be bitwise equal: without metadata there is no hash to compare
        # with.
        note.unlink()
    return aside


def _aside(folder: Path) -> Path:
    number = 0
    while (aside := folder.with_name(f"{folder.name}.corrupt-{number}")).exists():
        number += 1
    return aside
