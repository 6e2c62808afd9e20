"""Reads single records of the files that TFDS writes.

array_record files have an index of their records. tfrecord files have none, so each is
scanned once for the positions of its records. parquet files have no access to single
records and are not supported here.
"""

import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32
from tensorflow_datasets.proto import tf_example_pb2

from jaxsparse.data import image_sources, tfds_records

MIN_OPEN = 16  # files that may be open at once even if the limit is lower
AT_ONCE = 64  # records per call when a whole file is read


def max_open_files(files: int) -> int:
    """Computes how many files may be open at once, raising the limit if possible.

    ImageNet has about a thousand files, which is also a common limit of open files per
    process (`ulimit -n`). This function raises the soft limit by `files`, as far as the
    system allows.

    Args:
      files: number of files of the dataset.

    Returns:
      Number of files to keep open at once, at most `files`. It leaves at least three
      quarters of the previous limit for the rest of the process, unless that leaves
      fewer than `MIN_OPEN` files.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return files
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return files
    limit = soft + files
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):  # some systems have a lower limit than they report
        limit = soft
    return min(files, max(MIN_OPEN, limit - soft + soft // 4))


@runtime_checkable
class Shard(Protocol):
    """Records of one file, readable from several threads at once."""

    def __len__(self) -> int:
        """Returns the number of records."""

    def __getitem__(self, number: int) -> bytes:
        """Reads one record."""

    def __iter__(self) -> Iterator[bytes]:
        """Reads all records in order."""


class ArrayRecord:
    """An array_record file."""

    def __init__(self, path: str) -> None:
        """Opens the file."""
        from array_record.python import array_record_module

        # The reader reports a file without read permission as one without records.
        with open(path, "rb"):
            pass
        # No read-ahead: records are read in random order.
        self._reader = array_record_module.ArrayRecordReader(
            path, "readahead_buffer_size:0,max_parallelism:0"
        )
        self._lock = threading.Lock()  # the reader has a single read position

    def __len__(self) -> int:
        """Returns the number of records."""
        return self._reader.num_records()

    def __getitem__(self, number: int) -> bytes:
        """Reads one record."""
        with self._lock:
            return self._reader.read([number])[0]

    def __iter__(self) -> Iterator[bytes]:
        """Reads all records in order."""
        for first in range(0, len(self), AT_ONCE):
            with self._lock:
                some = self._reader.read(first, min(first + AT_ONCE, len(self)))
            yield from some


class TFRecord:
    """A tfrecord file; `tfds_records.spans` describes the format.

    The positions of all records are kept in memory. The file is opened for every read,
    so no lock is needed.
    """

    def __init__(self, path: str) -> None:
        """Scans the file for the positions of its records."""
        self._path = path
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            positions = list(tfds_records.spans(content))
        self._spans = np.array(positions, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        """Returns the number of records."""
        return len(self._spans)

    def __getitem__(self, number: int) -> bytes:
        """Reads one record."""
        start, length = self._spans[number]
        with open(self._path, "rb", buffering=0) as file:
            file.seek(start)
            return file.read(length)

    def __iter__(self) -> Iterator[bytes]:
        """Reads all records in order."""
        with open(self._path, "rb") as file:
            for start, length in self._spans:
                file.seek(start)
                yield file.read(length)


SHARDS: dict[str, Callable[[str], Shard]] = {
    "array_record": ArrayRecord,
    "tfrecord": TFRecord,
}
STAY_OPEN = ("array_record",)  # the others open the file for every read


class Records:
    """Encoded images in TFDS record files; an `image_sources.Source`.

    A file is opened at its first access, by one thread while others read other files.
    The most recently used files stay open, as many as `max_open_files` allows.

    Attributes:
      paths: paths of the files.
      again: what to do if a file is damaged, for messages.
    """

    def __init__(
        self,
        paths: Sequence[str],
        lengths: Sequence[int],
        *,
        again: str,
        open_shard: Callable[[str], Shard],
        stays_open: bool,
    ) -> None:
        """Initializes the records without opening a file.

        Args:
          paths: paths of the files.
          lengths: number of records that each file must have.
          again: what to do if a file is damaged, for messages.
          open_shard: function from the path of a file to its `Shard`.
          stays_open: whether a `Shard` keeps its file open.
        """
        self.paths = tuple(paths)
        self.again = again
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self._open_shard = open_shard
        self._shards: OrderedDict[int, Shard] = OrderedDict()
        count = len(self.paths)
        self._max_open = max_open_files(count) if stays_open else count
        self._lock = threading.Lock()  # guards `_shards`
        # One lock per file, so that no file is opened twice and slow opening of one
        # does not block the others.
        self._opening = [threading.Lock() for _ in self.paths]

    def __len__(self) -> int:
        """Returns the number of records in all files."""
        return int(self._ends[-1])

    def _find(self, row: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._ends, row, side="right"))
        return shard, row - (int(self._ends[shard - 1]) if shard else 0)

    def _opened(self, shard: int) -> Shard | None:
        with self._lock:
            if shard in self._shards:
                self._shards.move_to_end(shard)
            return self._shards.get(shard)

    def _open(self, shard: int) -> Shard:
        opened_shard = self._opened(shard)
        if opened_shard is not None:
            return opened_shard
        with self._opening[shard]:
            opened_shard = self._opened(
                shard
            )  # another thread may have opened it meanwhile
            if opened_shard is None:
                opened_shard = self._checked(shard)
                with self._lock:
                    self._shards[shard] = opened_shard
                    if len(self._shards) > self._max_open:
                        # Not closed explicitly: other threads may still read it. The
                        # last reference closes it.
                        self._shards.popitem(last=False)
            return opened_shard

    def _expected(self, shard: int) -> int:
        return int(self._ends[shard] - (self._ends[shard - 1] if shard else 0))

    def _checked(self, shard: int) -> Shard:
        expected, path = self._expected(shard), self.paths[shard]
        with image_sources.naming(path, f"a file of {expected} examples", self.again):
            opened = self._open_shard(path)
            if len(opened) != expected:
                raise ValueError(f"{len(opened)} records")
        return opened

    def _feature(self, row: int, name: str) -> Any:
        shard, number = self._find(row)
        opened = self._open(shard)
        with image_sources.naming(
            self.name(row), f"an example with {name}", self.again
        ):
            return _value(opened[number], name)

    def read(self, row: int) -> bytes:
        """Returns the encoded image of a row.

        Args:
          row: number of the example, from 0.
        """
        return self._feature(row, "image").bytes_list.value[0]

    def label(self, row: int) -> int:
        """Returns the label of a row.

        Args:
          row: number of the example, from 0.
        """
        return self._feature(row, "label").int64_list.value[0]

    def labels(self, shard: int) -> Int32[np.ndarray, " m"]:
        """Returns the labels of all records of one file.

        Args:
          shard: index of the file in `paths`.
        """
        opened, expected = self._open(shard), self._expected(shard)
        with image_sources.naming(self.paths[shard], "labeled examples", self.again):
            labels = (_value(one, "label").int64_list.value[0] for one in opened)
            return np.fromiter(labels, np.int32, expected)

    def name(self, row: int) -> str:
        """Returns the file and the record number of a row, for messages.

        Args:
          row: number of the example, from 0.
        """
        shard, number = self._find(row)
        return f"{self.paths[shard]}, record {number}"

    def parts(self) -> Iterator[str]:
        """Yields the name of each file and its number of records."""
        return (
            f"{os.path.basename(path)} {self._expected(shard)}"
            for shard, path in enumerate(self.paths)
        )


def _value(record: bytes, name: str) -> Any:
    feature = tf_example_pb2.Example.FromString(record).features.feature
    # Indexing a protobuf map adds a missing key, so an empty value means "missing".
    if not (feature[name].bytes_list.value or feature[name].int64_list.value):
        raise ValueError(f"a record without {name}")
    return feature[name]
