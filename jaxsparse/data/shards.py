"""Single records of TFDS's files, and the labels of all of them.

Files of array_record say where each record lies, and files of tfrecord are gone through
once; those of parquet give no single record. Labels lie beside the images, so all files
are read once, in threads; the labels found are kept in the user's cache folder.
"""

import hashlib
import logging
import mmap
import os
import resource
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32
from tensorflow_datasets.proto import tf_example_pb2

log = logging.getLogger(__name__)

CACHE = Path.home() / ".cache" / "jaxsparse" / "labels"
# ImageNet has a thousand files, and a process may have so many in all; `ulimit -n`.
MOST_OPEN = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


@runtime_checkable
class Shard(Protocol):
    """Records of one file; safe to ask from several threads."""

    def __len__(self) -> int:
        """Returns how many records there are."""

    def __getitem__(self, number: int) -> bytes:
        """Reads one record."""


class ArrayRecord:
    """A file of array_record."""

    def __init__(self, path: str) -> None:
        """Opens the file."""
        from array_record.python import array_record_module

        # Nothing is read ahead: single records are asked for.
        self._reader = array_record_module.ArrayRecordReader(
            path, "readahead_buffer_size:0,max_parallelism:0"
        )
        self._lock = threading.Lock()  # the reader has one position

    def __len__(self) -> int:
        """Returns how many records there are."""
        return self._reader.num_records()

    def __getitem__(self, number: int) -> bytes:
        """Reads one record."""
        with self._lock:
            return self._reader.read([number])[0]


class TFRecord:
    """A file of tfrecord; see `sources` for what it looks like.

    Where records begin is held, and the file opened for each of them.
    """

    def __init__(self, path: str) -> None:
        """Finds where each record begins."""
        self._path = path
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            spans, start = [], 0
            while start < len(content):
                if start + 12 > len(content):
                    raise ValueError("the file ends inside a record's header")
                (length,) = struct.unpack_from("<Q", content, start)
                if start + length + 16 > len(content):
                    raise ValueError("the file ends inside a record")
                spans.append((start + 12, length))
                start += length + 16
        self._spans = np.array(spans, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        """Returns how many records there are."""
        return len(self._spans)

    def __getitem__(self, number: int) -> bytes:
        """Reads one record."""
        start, length = self._spans[number]
        with open(self._path, "rb", buffering=0) as file:
            file.seek(start)
            return file.read(length)


SHARDS: dict[str, Callable[[str], Shard]] = {
    "array_record": ArrayRecord,
    "tfrecord": TFRecord,
}


class Records:
    """Encoded images in files of TFDS; see `stored.Source`.

    Files are opened when they are asked for, and so many kept open as `MOST_OPEN`.
    """

    def __init__(
        self,
        paths: Sequence[str],
        lengths: Sequence[int],
        *,
        again: str,
        open_shard: Callable[[str], Shard],
    ) -> None:
        """Remembers which files there are.

        Args:
          paths: of the files.
          lengths: how many records each must have.
          again: what to do where a file is damaged.
          open_shard: opens one.
        """
        self.paths = tuple(paths)
        self.again = again
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self._open_shard = open_shard
        self._shards: OrderedDict[int, Shard] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Returns how many records there are."""
        return int(self._ends[-1])

    def _find(self, row: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._ends, row, side="right"))
        return shard, row - (int(self._ends[shard - 1]) if shard else 0)

    def _open(self, shard: int) -> Shard:
        with self._lock:
            if shard not in self._shards:
                self._shards[shard] = self._checked(shard)
            self._shards.move_to_end(shard)
            found = self._shards[shard]
            if len(self._shards) > MOST_OPEN:
                self._shards.popitem(last=False)  # closed by whoever uses it last
            return found

    def _checked(self, shard: int) -> Shard:
        wanted = int(np.diff(self._ends, prepend=0)[shard])
        try:
            opened = self._open_shard(self.paths[shard])
            if len(opened) != wanted:
                raise ValueError(f"{len(opened)} records, not {wanted}")
        except Exception as error:  # two libraries' kinds of "damaged"
            raise ValueError(
                f"{self.paths[shard]} is damaged or missing: {error}; wanted {wanted} "
                f"examples; {self.again}"
            ) from error
        return opened

    def _feature(self, row: int) -> Any:
        shard, number = self._find(row)
        record = self._open(shard)[number]
        return tf_example_pb2.Example.FromString(record).features.feature

    def read(self, row: int) -> bytes:
        """Returns the encoded image of a row."""
        return self._feature(row)["image"].bytes_list.value[0]

    def label(self, row: int) -> int:
        """Returns the label of a row."""
        return self._feature(row)["label"].int64_list.value[0]

    def name(self, row: int) -> str:
        """Says where a row lies, for messages."""
        shard, number = self._find(row)
        return f"{self.paths[shard]}, record {number}"


def _digest(records: Records) -> str:
    """Names files by where they lie, their sizes and when they were written."""
    digest = hashlib.sha256()
    for path in records.paths:
        stat = os.stat(path)
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def labels(records: Records, *, classes: int) -> Int32[np.ndarray, " n"]:
    """Reads the labels of all records, or what was kept of reading them.

    Args:
      records: where they lie.
      classes: how many there are.

    Raises:
      ValueError: if a file is damaged, or a label is of no class.
    """
    try:
        kept = CACHE / f"{_digest(records)}.npy"
    except OSError as error:
        raise ValueError(f"{error.filename}: is missing; {records.again}") from error
    try:
        found = np.load(kept)
    except (OSError, ValueError):
        found = _read_labels(records)
        _keep(kept, found)
    if not ((found >= 0) & (found < classes)).all():
        raise ValueError(
            f"{records.paths[0]} and its like: a label outside 0 to {classes - 1}; "
            f"{records.again}"
        )
    return found


def _read_labels(records: Records) -> Int32[np.ndarray, " n"]:
    log.info("reading %d labels in %d files", len(records), len(records.paths))

    def one(row: int) -> int:
        try:
            return records.label(row)
        except Exception as error:  # two libraries' kinds of "damaged"
            raise ValueError(
                f"{records.name(row)}: is damaged: {error}; {records.again}"
            ) from error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(one, range(len(records)), chunksize=256)
        return np.fromiter(found, np.int32, len(records))


def _keep(path: Path, found: np.ndarray) -> None:
    """Writes labels for the next time; does without where that cannot be."""
    mine = path.with_name(f"{path.stem}.{os.getpid()}.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(mine, found)
        mine.replace(path)
    except OSError as error:
        log.warning("labels are read again the next time: %s", error)
