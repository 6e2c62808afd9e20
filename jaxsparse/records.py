"""A run's measurements: JSON lines, appended and read, safe to resume.

One record is one JSON object on one line of `metrics.jsonl`. Times go into records
of kind "time" only, so that everything else of a run that was killed and continued
is equal to the same run uninterrupted, byte for byte.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def read(path: Path) -> list[Record]:
    """Reads all whole records; a torn last line, left by a kill, is passed over.

    Args:
      path: a file of JSON lines; none at all counts as empty.

    Returns:
      The records in the order they were written.

    Raises:
      ValueError: if a line before the last is no JSON, naming it.
    """
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


def keep_only(path: Path, wanted: Callable[[Record], bool]) -> int:
    """Cuts the records that are not wanted, in one atomic exchange of the file.

    Args:
      path: a file of JSON lines; a torn last line goes in any case.
      wanted: says of each record whether it stays.

    Returns:
      Number of records cut.
    """
    if not path.exists():
        return 0
    records = read(path)
    kept = [record for record in records if wanted(record)]
    if len(kept) < len(records) or _is_torn(path):
        write_atomically(path, "".join(_line(record) for record in kept))
    return len(records) - len(kept)


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
