"""Log of a run's measurements: JSON lines that are appended, read, and safe to resume.

One record is one JSON object on one line of `metrics.jsonl`. Wall-clock times are
stored only in records of kind "timing". All other records of a run that was killed and
resumed are therefore byte for byte those of the same run without interruption.
"""

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxsparse import old_names

Record = dict[str, Any]

# The fields that every record of a run has.
FIELDS = ("kind", "stage", "step")

# Error numbers of missing or misplaced files, and None for errors that libraries raise
# without a number. Every other number is a fault of the machine.
OF_CONTENT = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)


def is_of_machine(error: BaseException) -> bool:
    """Returns whether an error comes from the machine and not from a file's content.

    Examples are too many open files, a missing permission, a full or failing disk, and
    too little memory. Such an error does not mean that the file is damaged.

    Args:
      error: an error raised while a file was read.
    """
    if isinstance(error, OSError):
        return error.errno not in OF_CONTENT
    return isinstance(error, MemoryError)


def read_object(path: Path) -> dict[str, Any]:
    """Reads a file that contains one JSON object, such as config.json.

    Args:
      path: path of the file, in UTF-8.

    Returns:
      The object.

    Raises:
      ValueError: if the file contains anything else; the message names the file.
      OSError: if the file does not exist or cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: expected a JSON object, got invalid JSON ({error}); restore or "
            "remove the file"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: expected a JSON object, got a {type(content).__name__}; restore "
            "or remove the file"
        )
    return content


def read(path: Path, *, fields: Iterable[str] = ()) -> list[Record]:
    """Reads all records; skips an incomplete last line, left by a killed process.

    Args:
      path: path of a file of JSON lines, in UTF-8. A missing file counts as empty.
      fields: names of fields that every record must have; for the metrics.jsonl of a
        run, `FIELDS`.

    Returns:
      The records, in the order in which they were written; those of older versions
      under the present names.

    Raises:
      ValueError: if a line before the last is not valid JSON, a line is not a JSON
        object, or a record lacks a field; the message contains the line number.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    # Records are appended line by line, so only the last can be incomplete.
    if not is_complete(lines[-1]):
        lines.pop()
    return [
        parse(line, f"{path}: line {number}", fields=fields)
        for number, line in enumerate(lines, start=1)
        if line
    ]


def is_complete(line: str) -> bool:
    """Returns whether a line is not cut off, as a killed process may leave the last.

    Args:
      line: a line of a file of JSON lines, without its newline; "" is complete.
    """
    try:
        json.loads(line or "{}")
    except json.JSONDecodeError:
        return False
    return True


def parse(line: str, place: str, *, fields: Iterable[str] = ()) -> Record:
    """Parses one line of a file of JSON lines.

    Args:
      line: the line, without its newline.
      place: the file and the line number, for messages.
      fields: names of fields that the record must have.

    Returns:
      The record; one of an older version under the present names.

    Raises:
      ValueError: if the line is not a JSON object, or lacks a field; the message begins
        with `place`.

    Examples:
      >>> parse('{"kind": "eval", "step": 3}', "metrics.jsonl: line 1")
      {'kind': 'eval', 'step': 3}
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{place}: expected a JSON object, got invalid JSON ({error.msg}); restore "
            "the file, or move it away to start again"
        ) from error
    if not isinstance(record, dict):
        raise ValueError(
            f"{place}: expected a JSON object, got {line[:40]}; restore the file, or "
            "move it away to start again"
        )
    needed = set(fields)
    if missing := sorted(needed - record.keys()):
        raise ValueError(
            f"{place}: expected the fields {sorted(needed)}, got a record without "
            f"{missing}; restore the file"
        )
    return old_names.translate_record(record)


def append(path: Path, records: Iterable[Record]) -> None:
    """Appends records and flushes them to the operating system.

    NaN and infinities, which JSON does not have, are written as null: readers then see
    a missing value.

    Args:
      path: path of a file of JSON lines; created if it does not exist.
      records: the records to append.

    Raises:
      OSError: if the file cannot be written; the message names the file.
    """
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.writelines(to_line(record) for record in records)


def sync(path: Path) -> None:
    """Waits until all appended records are on disk.

    Args:
      path: path of a file of JSON lines; created if it does not exist.

    Raises:
      OSError: if the file cannot be written; the message names the file.
    """
    with naming(path), path.open("a") as file:
        os.fsync(file.fileno())


def count(path: Path, stage: str) -> int:
    """Counts the complete records of a stage without parsing them.

    Args:
      path: path of a file of JSON lines; a missing file has no records.
      stage: name of the stage.

    Returns:
      Number of lines with this stage that end with a newline.
    """
    if not path.exists():
        return 0
    mark = f'"stage": {json.dumps(stage)}'.encode()
    # A line without a newline may be incomplete.
    with path.open("rb") as file:
        return sum(mark in line and line.endswith(b"\n") for line in file)


def keep_only(
    path: Path, keep: Callable[[Record], bool], *, fields: Iterable[str] = ()
) -> int:
    """Removes unwanted records by replacing the file atomically.

    Args:
      path: path of a file of JSON lines. An incomplete last line is removed,
        or completed if only its newline is missing.
      keep: returns whether to keep a record.
      fields: names of fields that every record must have.

    Returns:
      Number of records removed; an incomplete last line is not counted.

    Raises:
      ValueError: if the file is damaged before its last line, or a record lacks a
        field.
      OSError: if the file cannot be written; the message names the file.
    """
    if not path.exists():
        return 0
    records = read(path, fields=fields)
    kept = [record for record in records if keep(record)]
    if len(kept) < len(records) or is_torn(path):
        write_atomically(path, "".join(to_line(record) for record in kept))
    return len(records) - len(kept)


def sort(path: Path, key: Callable[[Record], int]) -> None:
    """Sorts records by a key, stably; writes the file only if the order changes.

    Args:
      path: path of a file of JSON lines.
      key: returns the sort key of a record.

    Raises:
      ValueError: if the file is damaged before its last line.
      OSError: if the file cannot be written; the message names the file.
    """
    rows = read(path)
    ordered = sorted(rows, key=key)
    if ordered != rows:
        write_atomically(path, "".join(to_line(row) for row in ordered))


def is_torn(path: Path) -> bool:
    """Returns whether the last line lacks its newline.

    Args:
      path: path of a file of JSON lines.
    """
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file so that a killed process leaves either the old or the new content.

    Args:
      path: path of the file; missing directories are created.
      content: the whole content; strings are encoded in UTF-8.

    Raises:
      OSError: if the file cannot be written; the message names the file.
    """
    data = content.encode() if isinstance(content, str) else content
    replacement = path.with_name(path.name + ".new")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without fsync, a power failure after the rename can leave an empty file.
        with replacement.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        replacement.replace(path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Names the file in errors of writing, which the system often does not.

    A context manager.

    Args:
      path: path of the file that is written inside.

    Raises:
      OSError: in place of any OSError raised inside.
    """
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{path}: expected a writable file, got {error.strerror}; free disk space "
            "or change the permissions, and run the same command again to continue"
        ) from error


def to_line(record: Record) -> str:
    """Converts a record to a line of JSON; NaN and infinities become null.

    Args:
      record: the record; also inside its dicts, lists and tuples.
    """
    return json.dumps(_or_null(record), allow_nan=False) + "\n"


def _or_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _or_null(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_or_null(each) for each in value]
    # The difference is NaN for both NaN and infinities, and 0 for all other floats.
    if isinstance(value, float) and value - value != 0.0:
        return None
    return value
