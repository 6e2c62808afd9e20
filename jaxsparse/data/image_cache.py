"""Keeps decoded datasets as arrays on disk, so that images are decoded only once.

An entry of the cache is a folder of `.npy` files, which are mapped to memory, and an
index with their sizes and hashes. Entries are named by a hash of the dataset's files,
so that they never become outdated, and may be deleted at any time.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import features

from jaxsparse.data import cache_dir, thread_pool
from jaxsparse.data.dataset import Examples

log = logging.getLogger(__name__)

FORMAT = 1  # increased when the files of an entry, or what is decoded, change
INDEX = "index.json"
DAY = 86_400  # seconds
ATTEMPTS = 3  # at replacing a broken entry, which other processes may do as well
BLOCK = 2**24  # bytes that are hashed at once
BROKEN = (OSError, ValueError, KeyError, TypeError)  # of an entry that is not intact
# Training examples, test examples and the number of classes.
Data = tuple[Examples, Examples, int]


def entry(name: str, files: str) -> Path | None:
    """Returns the folder of a dataset in the cache, which need not exist.

    Args:
      name: name of the dataset, such as "cifar10" or "cifar10:3.0.2".
      files: hash of the dataset's files, from `file_hash.with_folders`.

    Returns:
      The folder; it also depends on the version of Pillow, since versions can decode
      JPEG differently. None if there is no cache, see `cache_dir.find`.
    """
    root = cache_dir.find("images")
    if root is None:
        return None
    decoder = f"{PIL.__version__} {features.version('jpg')} {features.version('zlib')}"
    key = hashlib.sha256(f"{FORMAT} {decoder} {files}".encode()).hexdigest()
    return root / f"{name.partition(':')[0].replace('/', '_')}-{key[:32]}"


def read(decode: Callable[[], Data], find: Callable[[], Path | None]) -> Data:
    """Reads a dataset from the cache, or decodes it and saves it there.

    Args:
      decode: reads the dataset from its files.
      find: returns the folder from `entry`, by the present content of the files; None
        if there is no cache.

    Returns:
      The dataset. It does not depend on the cache.
    """
    folder = find()
    cached = None if folder is None else load(folder)
    if cached is not None:
        return cached
    decoded = decode()
    # If the files have changed in the meantime, it is unknown what was decoded.
    return save(folder, decoded) if folder and find() == folder else decoded


def load(folder: Path) -> Data | None:
    """Loads a dataset from the cache.

    Args:
      folder: folder of the dataset, from `entry`.

    Returns:
      The arrays that were saved. Images are mapped to memory: changes of them are
      private to this process and never written. None without an entry or, after a
      warning, if it cannot be read or is not what was saved.
    """
    try:
        return _open(folder) if folder.exists() else None
    except BROKEN as error:
        log.warning(
            "image cache %s: expected the arrays that were saved, got %s; the images "
            "are decoded again",
            *(folder, error),
        )
    return None


def save(folder: Path, data: Data) -> Data:
    """Saves a dataset to the cache, replacing an entry that is not intact.

    Several processes can save the same entry at once: all use that of the first.

    Args:
      folder: folder of the dataset, from `entry`.
      data: the decoded dataset.

    Returns:
      The dataset, mapped to memory as from `load`; or, after a warning, `data` itself
      if it cannot be saved.
    """
    new = folder.with_name(f".new-{uuid.uuid4().hex}")
    try:
        _delete_abandoned(folder.parent)
        _write(new, data)
        _publish(new, folder)
        return _open(folder)
    except BROKEN as error:
        log.warning(
            "image cache %s: expected a writable folder, got %s; the images are "
            "decoded again the next time; free disk space, name another folder (%s), "
            "or switch the cache off (config.data.use_cache)",
            *(folder, error, cache_dir.VARIABLE),
        )
        return data
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _delete_abandoned(cache: Path) -> None:
    """Deletes what processes that were killed left of entries, after a day."""
    for pattern in (".new-*", ".old-*"):
        for folder in cache.glob(pattern):
            # Other processes move and delete theirs at any moment.
            with contextlib.suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > DAY:
                    shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, data: Data) -> None:
    """Writes an entry to a new folder."""
    folder.mkdir(parents=True)
    train, test, classes = data
    arrays = {
        "train_images": train.images,
        "train_labels": train.labels,
        "test_images": test.images,
        "test_labels": test.labels,
    }
    notes = {}
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        np.save(path, array)
        notes[name] = _describe(path)
    text = json.dumps({"classes": classes, "arrays": notes}, indent=1) + "\n"
    (folder / INDEX).write_text(text, encoding="utf-8")


def _publish(new: Path, folder: Path) -> None:
    """Moves a written entry to its place, unless an intact one is there."""
    for attempt in range(ATTEMPTS):
        try:
            new.rename(folder)
            return
        except OSError:  # there is one already, or the disk fails
            if _is_intact(folder):
                return
            if attempt == ATTEMPTS - 1:
                raise
            _remove(folder)


def _is_intact(folder: Path) -> bool:
    try:
        _open(folder)
    except BROKEN:
        return False
    return True


def _remove(folder: Path) -> None:
    """Removes an entry, without a moment at which a part of it is there."""
    old = folder.with_name(f".old-{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        folder.rename(old)
    shutil.rmtree(old, ignore_errors=True)


def _open(folder: Path) -> Data:
    """Opens an entry.

    Raises:
      OSError: if it does not exist or cannot be read.
      ValueError: if a file is not what was saved; KeyError and TypeError likewise.
    """
    index: Any = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    arrays = {}
    for name, note in index["arrays"].items():
        path = folder / f"{name}.npy"
        if _describe(path) != note:
            raise ValueError(f"other content of {path.name}")
        # "c": copy on write, so that the arrays can be changed as decoded ones can.
        arrays[name] = np.asarray(np.load(path, mmap_mode="c"))
    train, test = (
        Examples(arrays[f"{split}_images"], np.array(arrays[f"{split}_labels"]))
        for split in ("train", "test")
    )
    return train, test, index["classes"]


def _describe(path: Path) -> dict[str, Any]:
    """Returns the size of a file in bytes and a hash of its content."""
    size = path.stat().st_size
    content = np.memmap(path, np.uint8, "r")
    starts = range(0, size, BLOCK)

    def digest(i: int) -> bytes:
        return hashlib.sha256(content[starts[i] : starts[i] + BLOCK].data).digest()

    parts = thread_pool.in_threads(digest, range(len(starts)))
    return {"bytes": size, "sha256": hashlib.sha256(b"".join(parts)).hexdigest()}
