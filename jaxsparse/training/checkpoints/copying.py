"""Copies checkpoints from one run to another."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from jaxsparse import metrics_log, multihost
from jaxsparse.training.checkpoints.errors import first_line
from jaxsparse.training.checkpoints.metadata import content_path, metadata_path


def copy(
    source: Path,
    there: str,
    directory: Path,
    here: str,
    *,
    extra: dict[str, Any] | None = None,
) -> None:
    """Copies a finished checkpoint, completely or not at all.

    The arrays are not read: whoever loads the copy compares them with their hash. Where
    the file system supports it, the files are hard links and take no space.

    Args:
      source: directory of all checkpoints of the other run.
      there: slash-separated name of the checkpoint there, such as "train/last".
      directory: directory of all checkpoints of this run.
      here: name of the copy. An unfinished checkpoint of this name is replaced.
      extra: small JSON values to save with the copy; None keeps those of the original.

    Raises:
      OSError: if the checkpoint cannot be read or the copy cannot be written.
    """
    original, folder = content_path(source, there), content_path(directory, here)

    def act() -> None:
        note = metrics_log.read_object(metadata_path(source, there))
        note |= {} if extra is None else {"extra": extra}
        if folder.exists():
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copytree(original, folder, copy_function=_link_or_copy)
        except OSError as error:
            raise OSError(
                f"checkpoint {folder}: cannot be copied from {original} "
                f"({first_line(error)}); is the disk full? "
                f"{shutil.disk_usage(folder.parent).free // 2**20} MiB are free"
            ) from error
        # The metadata last, because they mark the copy as finished.
        text = json.dumps(note, indent=1) + "\n"
        metrics_log.write_atomically(metadata_path(directory, here), text)

    multihost.on_primary(act)


def _link_or_copy(original: str, copied: str) -> None:
    """Links a file; copies it where that is impossible, as on another disk."""
    try:
        os.link(original, copied)
    except OSError:
        shutil.copy2(original, copied)
