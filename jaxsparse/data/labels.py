"""Reads the labels of datasets whose images stay in TFDS record files.

A record holds an image and its label, so all files must be read to collect the labels.
This is done once, in threads; the labels are then cached in the user's cache folder.
Each process of a run reads the files itself if its cache does not have the labels.
"""

import hashlib
import logging
import os
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from jaxsparse.data import cache_dir, record_files, thread_pool
from jaxsparse.data.image_sources import CorruptImage

log = logging.getLogger(__name__)


def cache_folder() -> Path | None:
    """Returns the cache folder of labels; None if the user has no home folder."""
    return cache_dir.find("labels")


def _digest(records: record_files.Records) -> str:
    """Hashes the paths, sizes and modification times of record files."""
    digest = hashlib.sha256()
    for path in records.paths:
        # With the time, a file rewritten with the same size does not match the cache.
        stat = os.stat(path)
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def read(records: record_files.Records, *, classes: int) -> Int32[np.ndarray, " n"]:
    """Reads the labels of all records from the cache, or else from the files.

    Args:
      records: the records.
      classes: number of classes; labels must be in [0, `classes`).

    Returns:
      The label of each record, int32.

    Raises:
      ValueError: if a file is damaged or missing, or a label is out of range.
    """
    try:
        name = f"{_digest(records)}.npy"
    except FileNotFoundError as error:
        raise CorruptImage(
            f"{error.filename}: expected a record file, got none; {records.again}"
        ) from error
    folder = cache_folder()
    cached = None if folder is None else folder / name
    labels = None if cached is None else _load(cached, len(records))
    if labels is None:
        labels = _read_labels(records)
        if cached is not None:
            _cache(cached, labels)
    if not ((labels >= 0) & (labels < classes)).all():
        raise ValueError(
            f"{records.paths[0]} or another file of this split: expected labels from 0 "
            f"to {classes - 1}, got {labels.min()} to {labels.max()}; {records.again}"
        )
    return labels


def _load(path: Path, count: int) -> Int32[np.ndarray, " n"] | None:
    """Reads cached labels; returns None if the file is missing or does not fit."""
    try:
        labels = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    is_valid = isinstance(labels, np.ndarray) and labels.shape == (count,)
    return labels if is_valid and labels.dtype == np.int32 else None


def _read_labels(records: record_files.Records) -> Int32[np.ndarray, " n"]:
    log.info("reading %d labels in %d files", len(records), len(records.paths))
    return np.concatenate(
        thread_pool.in_threads(records.labels, range(len(records.paths)))
    )


def _cache(path: Path, labels: np.ndarray) -> None:
    """Writes labels to the cache; if that fails, only logs a warning."""
    temporary = None
    # Several processes may write the same file, so each writes its own and renames it.
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, suffix=".npy", delete=False
        ) as file:
            temporary = Path(file.name)
            np.save(file, labels)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        log.warning("labels are read again the next time: %s", error)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
