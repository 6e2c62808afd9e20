"""Single records of TFDS's files.

Files of array_record say where each record lies, and files of tfrecord are gone through
once; those of parquet give no single record.
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

from jaxsparse.data import image_files, sources

LEAST_OPEN = 16
AT_ONCE = 64  # records that are read together where all are


def room(files: int) -> int:
    """Returns how many of so many files may be open at once.

    ImageNet has a thousand, and a process may have so many in all, as `ulimit -n` says.
    That is raised by as many as the system lets it be.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return files
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return files
    wanted = soft + files
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # some systems have another limit below
        wanted = soft
    return min(files, max(LEAST_OPEN, wanted - soft + soft // 4))


@runtime_checkable
class Shard(Protocol):
    """Records of one file; safe to ask from several threads."""

    def __len__(self) -> int:
        """Returns how many records there are."""

    def __getitem__(self, number: int) -> bytes:
        """Reads one record."""

    def __iter__(self) -> Iterator[bytes]:
        """Reads one record after the other."""


class ArrayRecord:
    """A file of array_record."""

    def __init__(self, path: str) -> None:
        """Opens the file."""
        from array_record.python import array_record_module

        # The reader would say of one it may not open that it has no records.
        with open(path, "rb"):
            pass
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

    def __iter__(self) -> Iterator[bytes]:
        """Reads one record after the other."""
        for first in range(0, len(self), AT_ONCE):
            with self._lock:
                some = self._reader.read(first, min(first + AT_ONCE, len(self)))
            yield from some


class TFRecord:
    """A file of tfrecord; see `sources.spans` for what it looks like.

    Where records begin is held, and the file opened for each of them.
    """

    def __init__(self, path: str) -> None:
        """Finds where each record begins."""
        self._path = path
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            found = list(sources.spans(content))
        self._spans = np.array(found, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        """Returns how many records there are."""
        return len(self._spans)

    def __getitem__(self, number: int) -> bytes:
        """Reads one record."""
        start, length = self._spans[number]
        with open(self._path, "rb", buffering=0) as file:
            file.seek(start)
            return file.read(length)

    def __iter__(self) -> Iterator[bytes]:
        """Reads one record after the other."""
        with open(self._path, "rb") as file:
            for start, length in self._spans:
                file.seek(start)
                yield file.read(length)


SHARDS: dict[str, Callable[[str], Shard]] = {
    "array_record": ArrayRecord,
    "tfrecord": TFRecord,
}
STAY_OPEN = ("array_record",)  # the others open a file for each record


class Records:
    """Encoded images in files of TFDS; see `stored.Source`.

    Files are opened when they are asked for, each by one thread while others go on, and
    as many kept open as there is `room` for.
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
        """Remembers which files there are.

        Args:
          paths: of the files.
          lengths: how many records each must have.
          again: what to do where a file is damaged.
          open_shard: opens one.
          stays_open: whether a shard holds its file open.
        """
        self.paths = tuple(paths)
        self.again = again
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self._open_shard = open_shard
        self._shards: OrderedDict[int, Shard] = OrderedDict()
        count = len(self.paths)
        self._room = room(count) if stays_open else count
        self._lock = threading.Lock()  # of the shards that are open
        self._opening = [threading.Lock() for _ in self.paths]

    def __len__(self) -> int:
        """Returns how many records there are."""
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
        found = self._opened(shard)
        if found is not None:
            return found
        with self._opening[shard]:
            found = self._opened(shard)  # by whoever was here before
            if found is None:
                found = self._checked(shard)
                with self._lock:
                    self._shards[shard] = found
                    if len(self._shards) > self._room:
                        self._shards.popitem(last=False)  # closed by its last user
            return found

    def _wanted(self, shard: int) -> int:
        return int(self._ends[shard] - (self._ends[shard - 1] if shard else 0))

    def _checked(self, shard: int) -> Shard:
        wanted, path = self._wanted(shard), self.paths[shard]
        what = f"; wanted {wanted} examples; {self.again}"
        with image_files.naming(path, what):
            opened = self._open_shard(path)
            if len(opened) != wanted:
                raise ValueError(f"{len(opened)} records, not {wanted}")
        return opened

    def _feature(self, row: int, name: str) -> Any:
        shard, number = self._find(row)
        opened = self._open(shard)
        with image_files.naming(self.name(row), f"; {self.again}"):
            return _value(opened[number], name)

    def read(self, row: int) -> bytes:
        """Returns the encoded image of a row."""
        return self._feature(row, "image").bytes_list.value[0]

    def label(self, row: int) -> int:
        """Returns the label of a row."""
        return self._feature(row, "label").int64_list.value[0]

    def labels(self, shard: int) -> Int32[np.ndarray, " m"]:
        """Returns all labels of one file."""
        opened, wanted = self._open(shard), self._wanted(shard)
        with image_files.naming(self.paths[shard], f"; {self.again}"):
            found = (_value(one, "label").int64_list.value[0] for one in opened)
            return np.fromiter(found, np.int32, wanted)

    def name(self, row: int) -> str:
        """Says where a row lies, for messages."""
        shard, number = self._find(row)
        return f"{self.paths[shard]}, record {number}"

    def parts(self) -> Iterator[str]:
        """Names the files, and how many records each has."""
        return (
            f"{os.path.basename(path)} {self._wanted(shard)}"
            for shard, path in enumerate(self.paths)
        )


def _value(record: bytes, name: str) -> Any:
    feature = tf_example_pb2.Example.FromString(record).features.feature
    if not (feature[name].bytes_list.value or feature[name].int64_list.value):
        raise ValueError(f"a record without {name}")
    return feature[name]
