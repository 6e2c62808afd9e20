"""Finds the records of a stage without reading those of all other stages.

A run appends records to one file and reads them back at the end of each stage. The
index stores the positions of the records of each stage and kind, so that the
time for reading grows with the number of stages, and not with its square.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxsparse import metrics_log
from jaxsparse.metrics_log import Record

# Fields by which records are indexed. Their values are compared as text.
KEYS = ("kind", "stage", "variant")

# First and last byte, the latter exclusive, and number of a line.
Line = tuple[int, int, int]


class RecordIndex:
    """Positions of the records in a run's `metrics.jsonl`.

    Before every answer the index reads what was appended to the file since the last
    one, by whatever process. If the file was replaced or is shorter than it was, all of
    it is read again. It must not be changed in place in any other way.

    Attributes:
      path: path of the file, which need not exist.

    Examples:
      >>> index = RecordIndex(Path("metrics.jsonl"))
      >>> index.read(stage="level_00/ticket", kind="level")
      []
    """

    def __init__(self, path: Path) -> None:
        """Initializes an index without reading the file.

        Args:
          path: path of a file of JSON lines, in UTF-8.
        """
        self.path = path
        self._reset()

    def _reset(self) -> None:
        self._file: tuple[int, int] | None = None  # device and inode
        self._end = self._count = 0  # size and number of the indexed lines
        self._lines: dict[tuple[str, ...], list[Line]] = {}

    def read(self, **wanted: Any) -> list[Record]:
        """Reads the records whose fields have given values, in the order of the file.

        Args:
          **wanted: field names and their values. Records are found fast by `KEYS`.

        Returns:
          The same records as a search of all those that `metrics_log.read` returns.

        Raises:
          ValueError: if the file is damaged before its last line, or a record lacks one
            of `metrics_log.FIELDS`; the message contains the line number.
        """
        rest = self._update()
        lines = _read_lines(self.path, sorted(self._select(wanted)))
        records = [self._parse(line, number) for line, number in lines]
        if rest:
            records.append(self._parse(rest, self._count + 1))
        return [
            record
            for record in records
            if all(record.get(name) == value for name, value in wanted.items())
        ]

    def count(self, stage: str) -> int:
        """Counts the records of a stage whose line has its newline.

        Args:
          stage: name of the stage.

        Raises:
          ValueError: if the file is damaged before its last line, or a record lacks one
            of `metrics_log.FIELDS`; the message contains the line number.
        """
        self._update()
        return sum(1 for _ in self._select({"stage": stage}))

    def keep_only(self, stage: str, keep: Callable[[Record], bool]) -> int:
        """Removes unwanted records of one stage by replacing the file atomically.

        An incomplete last line is removed too, or completed if only its newline is
        missing. If there is neither such a line nor a record of the stage, the file is
        not read.

        Args:
          stage: name of the stage.
          keep: returns whether to keep a record of the stage.

        Returns:
          Number of records removed; an incomplete last line is not counted.

        Raises:
          ValueError: if the file is damaged before its last line, or a record lacks one
            of `metrics_log.FIELDS`.
          OSError: if the file cannot be written; the message names the file.
        """
        if not self.count(stage) and not self._is_torn():
            return 0

        def stays(record: Record) -> bool:
            return record["stage"] != stage or keep(record)

        self._reset()
        return metrics_log.keep_only(self.path, stays, fields=metrics_log.FIELDS)

    def _is_torn(self) -> bool:
        return self.path.exists() and metrics_log.is_torn(self.path)

    def _select(self, wanted: dict[str, Any]) -> Iterator[Line]:
        """Yields the lines of records that can have the given values."""
        texts = {name: str(value) for name, value in wanted.items()}
        for key, lines in self._lines.items():
            if all(texts.get(n, v) == v for n, v in zip(KEYS, key, strict=True)):
                yield from lines

    def _update(self) -> str:
        """Indexes new lines; returns a complete last one without newline, or ""."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._reset()
            return ""
        file = (status.st_dev, status.st_ino)
        if file != self._file or status.st_size < self._end:
            self._reset()
            self._file = file
        if status.st_size == self._end:
            return ""
        with self.path.open("rb") as opened:
            opened.seek(self._end)
            *whole, rest = opened.read().split(b"\n")
        for line in whole:
            self._add(line)
        last = rest.decode()
        return last if metrics_log.is_complete(last) else ""

    def _add(self, line: bytes) -> None:
        """Adds the next line of the file."""
        if line:
            record = self._parse(line.decode(), self._count + 1)
            key = tuple(str(record.get(name)) for name in KEYS)
            place = (self._end, self._end + len(line), self._count + 1)
            self._lines.setdefault(key, []).append(place)
        self._end += len(line) + 1
        self._count += 1

    def _parse(self, line: str, number: int) -> Record:
        place = f"{self.path}: line {number}"
        return metrics_log.parse(line, place, fields=metrics_log.FIELDS)


def _read_lines(path: Path, lines: Sequence[Line]) -> Iterator[tuple[str, int]]:
    """Yields the content and the number of lines of a file."""
    if not lines:
        return
    with path.open("rb") as file:
        for start, stop, number in lines:
            file.seek(start)
            yield file.read(stop - start).decode(), number
