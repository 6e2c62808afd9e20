"""Timing in turns, and tables of what came out.

Jobs that are to be compared run A B A B ..., after one call each that compiles. A
ratio is the median of the ratios within repetitions, which a machine that slows down
for a while moves less than the ratio of medians.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

# Seconds before a turn: threads that spin and loaders that fetch ahead come to rest.
PAUSE = 0.2

Name = TypeVar("Name")


class Job(NamedTuple):
    """Something to be timed.

    Attributes:
      run: called with a number of calls; makes them and waits until they have ended.
      work: what one call comes to, in the unit of the rate.
    """

    run: Callable[[int], Any]
    work: float


class Table(NamedTuple):
    """What a section found.

    Attributes:
      title: what was measured.
      header: names of the columns.
      rows: cells, as text.
      note: how to read it.
      data: the same with all repetitions, for the file.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str
    data: dict[str, Any]


def in_turns(
    jobs: Mapping[Name, Job], *, seconds: float, repetitions: int
) -> dict[Name, list[float]]:
    """Times jobs in turns.

    Args:
      jobs: what to time, by name.
      seconds: how long each job is measured, over all repetitions; at least one call
        a repetition is made.
      repetitions: how often each job has its turn.

    Returns:
      For each job its rates, in work per second, one a repetition.
    """
    calls = {}
    for name, job in jobs.items():
        job.run(1)  # compiles
        calls[name] = max(1, round(seconds / repetitions / _clock(job, 1)))
    rates: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repetitions):
        for name, job in jobs.items():
            rates[name].append(calls[name] * job.work / _clock(job, calls[name]))
    return rates


def _clock(job: Job, calls: int) -> float:
    time.sleep(PAUSE)
    begin = time.perf_counter()
    job.run(calls)
    return time.perf_counter() - begin


def best_settings(
    rates: Mapping[tuple[str, str], list[float]],
) -> tuple[dict[str, list[float]], list[str]]:
    """Keeps of each (row, setting) the fastest setting, and words which that was."""
    found, words = {}, []
    for row in dict.fromkeys(row for row, _ in rates):
        tried = {setting: rates[r, setting] for r, setting in rates if r == row}
        setting = max(tried, key=lambda name: statistics.median(tried[name]))
        found[row] = tried[setting]
        if len(tried) > 1:
            words.append(f"{row}: {setting}, the best of {', '.join(tried)}.")
    return found, words


def ratios(rates: Sequence[float], base: Sequence[float]) -> list[float]:
    """Divides rates by those of the same repetitions."""
    return [rate / other for rate, other in zip(rates, base, strict=True)]


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Words the median and the range of repetitions."""
    low, high = min(values), max(values)
    middle = statistics.median(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def rate_table(
    title: str,
    rates: Mapping[str, list[float]],
    *,
    unit: str,
    base: str,
    note: str = "",
    absent: Mapping[str, str] | None = None,
) -> Table:
    """Makes a table of rates and of their ratios to one of them.

    Args:
      title: what was measured.
      rates: by row.
      unit: of the rates.
      base: the row that ratios are to.
      note: how to read it.
      absent: by row, why it was not measured.
    """
    rows = [
        (name, spread(values, 0 if min(values) >= 20 else 2))
        + (spread(ratios(values, rates[base]), 2),)
        for name, values in rates.items()
    ]
    rows += [(name, reason, "") for name, reason in (absent or {}).items()]
    return Table(
        title,
        ("", unit, f"ratio to {base}"),
        rows,
        note,
        {"unit": unit, "rates": dict(rates), "absent": dict(absent or {})},
    )


def markdown(table: Table) -> str:
    """Writes a table as Markdown."""
    lines = [table.header, ("---",) * len(table.header), *table.rows]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    note = f"\n\n{table.note}" if table.note else ""
    return f"### {table.title}\n\n{body}{note}\n"
