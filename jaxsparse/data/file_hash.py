"""Hashes the files of a dataset, by which caches and runs detect that they changed.

Reading many files takes seconds, so the hashes of large datasets are cached in the
user's cache directory, by the sizes and times of all files.
"""

import contextlib
import hashlib
import itertools
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

from jaxsparse import metrics_log
from jaxsparse.data import cache_dir, folders

# The hash is cached for datasets with at least as many files or bytes.
MANY_FILES = 5000
MANY_BYTES = 2**28
# Times of files have a limited resolution, so a file that was changed just now can
# change again without another time.
SETTLED_NS = 2 * 10**9


class Contents(NamedTuple):
    """What readers look at in the folder of a dataset, in a fixed order.

    Attributes:
      folders: all folders, also empty ones.
      files: all files.
    """

    folders: list[Path]
    files: list[Path]


def of_folder(root: Path) -> str:
    """Hashes the files of a dataset.

    Args:
      root: folder of the dataset; of one version, if TFDS has prepared it.

    Returns:
      SHA-256, in hexadecimal, of the names and contents of the files that readers use.
      It depends neither on the location of the folder nor on modification times.

    Raises:
      OSError: if a file or folder cannot be read.
    """
    return _of_files(root, _list(root).files)


def with_folders(root: Path) -> str:
    """Hashes the files of a dataset and the names of its folders.

    Unlike `of_folder`, this detects an empty folder, which readers take for a class.

    Args:
      root: folder of the dataset; of one version, if TFDS has prepared it.

    Returns:
      SHA-256, in hexadecimal.

    Raises:
      OSError: if a file or folder cannot be read.
    """
    contents = _list(root)
    names = [path.relative_to(root).as_posix() for path in contents.folders]
    text = "\n".join([_of_files(root, contents.files), *names])
    return hashlib.sha256(text.encode()).hexdigest()


def _list(root: Path) -> Contents:
    """Lists what readers look at. Like them, it skips hidden names, follows links."""
    splits = [root / name for names in folders.SPLITS.values() for name in names]
    walks = [
        os.walk(x, onerror=_reraise, followlinks=True) for x in splits if x.is_dir()
    ]
    top = [path.name for path in root.iterdir() if path.is_file()]
    contents = Contents([], [])
    for folder, inner, names in itertools.chain([(root, [], top)], *walks):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        contents.folders.append(Path(folder))
        visible = (name for name in sorted(names) if not name.startswith("."))
        contents.files.extend(Path(folder, name) for name in visible)
    return contents


def _reraise(error: OSError) -> None:
    raise error


def _of_files(root: Path, files: list[Path]) -> str:
    """Returns the cached hash of the files, or reads them."""
    cached = _cache_file(root, files)
    if cached is not None:
        with contextlib.suppress(OSError, ValueError):
            known = cached.read_text(encoding="utf-8")
            if re.fullmatch("[0-9a-f]{64}", known):
                return known
    sha = hashlib.sha256()
    for path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        sha.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    if cached is not None:
        with contextlib.suppress(OSError):  # it is computed again the next time
            metrics_log.write_atomically(cached, sha.hexdigest())
    return sha.hexdigest()


def _cache_file(root: Path, files: list[Path]) -> Path | None:
    """Returns the file in which a hash is cached; None if it is not cached."""
    directory = cache_dir.find("digests")
    stats = [path.stat() for path in files]
    many = len(files) >= MANY_FILES or sum(s.st_size for s in stats) >= MANY_BYTES
    newest = max((max(s.st_mtime_ns, s.st_ctime_ns) for s in stats), default=0)
    if directory is None or not many or time.time_ns() - newest < SETTLED_NS:
        return None
    sha = hashlib.sha256(f"{root.absolute()}\n".encode())
    for path, s in zip(files, stats, strict=True):
        line = f"{path}\0{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}\n"
        sha.update(line.encode())
    return directory / sha.hexdigest()
