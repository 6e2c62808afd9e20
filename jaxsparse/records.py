"""A run's measurements: JSON lines, appended and read, safe to resume.

One record is one JSON object on one line of `metrics.jsonl`. Times go into records
of kind "time" only, so that everything else of a run that was killed and continued
is equal to the same run uninterrupted, byte for byte.
"""

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Record = dict[str, Any]

# What every record of a run has.
FIELDS = ("kind", "stage", "step")

# What a missing or misplaced file raises; every other number is of the machine.
OF_CONTENT = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)


def is_of_machine(error: BaseException) -> bool:
    """Tells errors of the machine from what a file that was read is like.

    Too many open files, no permission, a disk that fails or is full, no memory: none
    of these says anything about the content of a file.
    """
    if isinstance(error, OSError):
        return error.errno not in OF_CONTENT
    return isinstance(error, MemoryError)


def read_object(path: Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object, such as config.json.

    Raises:
      ValueError: if it holds anything else, naming it.
      OSError: if it is not there or cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: is no JSON ({error}); expected an object; restore or remove it"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: got a JSON {type(content).__name__}, expected an object; restore "
            "or remove it"
        )
    return content


def read(path: Path, *, fields: Iterable[str] = ()) -> list[Record]:
    """Reads all whole records; a torn last line, left by a kill, is passed over.

    Args:
      path: a file of JSON lines; none at all counts as empty.
      fields: that every record must have; `FIELDS` in a run's metrics.jsonl.

    Returns:
      The records in the order they were written.

    Raises:
      ValueError: if a line before the last is no JSON, or a record lacks a field,
        naming the line.
    """
    needed = set(fields)
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    whole = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line) if line else None
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(
                f"{path}: line {number} is no JSON ({error.msg}); wanted one record a "
                "line; was the file edited? Restore it, or move it away to begin anew"
            ) from error
        if isinstance(record, dict):
            if missing := sorted(needed - record.keys()):
                raise ValueError(
                    f"{path}: line {number} lacks {missing}; expected a record of a "
                    "run; was the file edited? Restore it"
                )
            whole.append(record)
        elif line:
            raise ValueError(
                f"{path}: line {number} is {line[:40]}; wanted a JSON object; restore "
                "the file, or move it away to begin anew"
            )
    return whole


def append(path: Path, records: Iterable[Record]) -> None:
    """Appends records and hands them to the operating system at once.

    Numbers that JSON does not know are written as null: a loss that is NaN is a
    missing number to whoever reads it.

    Raises:
      OSError: if the file cannot be written, naming it.
    """
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.writelines(_line(record) for record in records)


def sync(path: Path) -> None:
    """Waits until what was appended is on the disk.

    Raises:
      OSError: if it cannot be written, naming the file.
    """
    with naming(path), path.open("a") as file:
        os.fsync(file.fileno())


def count(path: Path, stage: str) -> int:
    """Counts the whole records of a stage, without reading what else they say."""
    if not path.exists():
        return 0
    mark = f'"stage": {json.dumps(stage)}'.encode()
    with path.open("rb") as file:
        return sum(mark in line and line.endswith(b"\n") for line in file)


def keep_only(
    path: Path, wanted: Callable[[Record], bool], *, fields: Iterable[str] = ()
) -> int:
    """Cuts the records that are not wanted, in one atomic exchange of the file.

    Args:
      path: a file of JSON lines; a torn last line goes in any case.
      wanted: says of each record whether it stays.
      fields: as in `read`.

    Returns:
      Number of records cut.
    """
    if not path.exists():
        return 0
    records = read(path, fields=fields)
    kept = [record for record in records if wanted(record)]
    if len(kept) < len(records) or _is_torn(path):
        write_atomically(path, "".join(_line(record) for record in kept))
    return len(records) - len(kept)


def sort(path: Path, key: Callable[[Record], int]) -> None:
    """Puts records in order, if they are not; those of equal keys keep theirs."""
    rows = read(path)
    ordered = sorted(rows, key=key)
    if ordered != rows:
        write_atomically(path, "".join(_line(row) for row in ordered))


def _is_torn(path: Path) -> bool:
    """Says whether the last line lacks its end."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a whole file so that a kill leaves either the old one or the new one.

    Raises:
      OSError: if it cannot be written, naming it.
    """
    data = content.encode() if isinstance(content, str) else content
    fresh = path.with_name(path.name + ".new")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Says which file could not be written; the system's own message often does not."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: cannot be written ({error.strerror}); make room or allow it, and "
            "run the same command again to continue"
        ) from error


def _line(record: Record) -> str:
    finite = {name: _or_null(value) for name, value in record.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


def _or_null(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0.0:
        return None
    return value
