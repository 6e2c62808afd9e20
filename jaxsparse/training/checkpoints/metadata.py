"""Metadata files of checkpoints: the hash, and small values saved with the state."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from jaxsparse import multihost
from jaxsparse.training import old_checkpoints, run_paths
from jaxsparse.training.checkpoints.errors import CorruptFile, first_line


class Metadata(NamedTuple):
    """Metadata of a checkpoint; a checkpoint without it is unfinished.

    Attributes:
      hash: `digest` of the state.
      extra: small JSON values that were saved with the state.
      leaves: hash of names, dtypes and shapes; None in metadata of older versions.
      layout: version of the sparse optimizer state, see `old_checkpoints.LAYOUT`.
    """

    hash: str
    extra: dict[str, Any]
    leaves: str | None
    layout: int


def metadata_path(directory: Path, name: str) -> Path:
    """Returns the path of a checkpoint's metadata file.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name, such as "level_03/ticket/last".
    """
    return directory / f"{name}.json"


def content_path(directory: Path, name: str) -> Path:
    """Returns the absolute path of the directory with a checkpoint's arrays.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name, such as "level_03/ticket/last".

    Raises:
      ValueError: if Orbax cannot read from such a path.
    """
    folder = (directory / name).absolute()
    run_paths.check(folder)
    return folder


def read_metadata(directory: Path, name: str) -> Metadata | None:
    """Reads the metadata of a checkpoint.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name, such as "level_03/ticket/last".

    Returns:
      The metadata, the same on every process; None if there is none.

    Raises:
      CorruptFile: if the file does not have the fields that `save` writes.
      OSError: if the machine cannot read it.
    """
    path = metadata_path(directory, name)
    return multihost.broadcast_from_primary(lambda: _read(path))


def _read(path: Path) -> Metadata | None:
    """Reads a file of metadata on the process that calls it; see `read_metadata`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        note = Metadata(
            found["hash"],
            found["extra"],
            found.get("leaves"),
            found.get("layout", 1),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptFile(
            f"checkpoint {path.with_suffix('')}: corrupt (its metadata "
            f"{path.name} cannot be read: {first_line(error)})"
        ) from error
    if not (isinstance(note.hash, str) and isinstance(note.extra, dict)):
        raise CorruptFile(
            f"checkpoint {path.with_suffix('')}: corrupt (its metadata "
            f"{path.name} "
            "lacks its hash or its extra values)"
        )
    return note


def exists(directory: Path, name: str) -> bool:
    """Returns whether a checkpoint was completely written.

    Its weights may have been deleted since, see `delete_weights`. A checkpoint with
    corrupt metadata counts as unfinished.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name, such as "level_03/ticket/last".
    """
    return recorded_hash(directory, name) is not None


def recorded_hash(directory: Path, name: str) -> str | None:
    """Returns the recorded hash of a checkpoint, even if its weights were deleted.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name, such as "level_03/ticket/last".

    Returns:
      The hash; None if the checkpoint is unfinished or its metadata is corrupt.
    """
    try:
        note = read_metadata(directory, name)
    except CorruptFile:
        return None
    return None if note is None else note.hash


def recorded_extra(directory: Path, name: str) -> dict[str, Any]:
    """Returns the JSON values that were saved with a checkpoint.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name, such as "level_03/ticket/last".

    Returns:
      The values; {} if the checkpoint is unfinished or its metadata is corrupt.
    """
    try:
        note = read_metadata(directory, name)
    except CorruptFile:
        return {}
    return {} if note is None else note.extra


def comparable(directory: Path, name: str) -> bool:
    """Returns whether a checkpoint's hash can be compared with hashes of new states.

    Hashes depend on the layout of the sparse optimizer state; those of an older layout
    differ from the hash of the same state today.

    Args:
      directory: directory of all checkpoints of a run.
      name: slash-separated name, such as "level_03/ticket/last".
    """
    try:
        note = read_metadata(directory, name)
    except CorruptFile:
        return False
    return note is not None and note.layout == old_checkpoints.LAYOUT
