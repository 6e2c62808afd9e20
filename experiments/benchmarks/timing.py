"""Interleaved timing, and tables of the results.

Jobs that are compared run in turns, A B A B ..., after one call each that compiles. A
ratio is the median of the ratios within repetitions. If the machine slows down for a
while, this median changes less than the ratio of the medians.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

# Seconds before each turn, in which spinning threads and prefetching loaders settle.
PAUSE = 0.2

Name = TypeVar("Name")


class Job(NamedTuple):
    """A piece of work that can be timed.

    Attributes:
      run: called with a number of calls; makes these calls and waits for their results.
      work: the amount of work in one call, in the unit of the rate.
      prepare: called before each `run` that is timed, and not timed itself.
      chain: the largest number of calls after one `prepare`; None for any number.
    """

    run: Callable[[int], Any]
    work: float
    prepare: Callable[[], Any] = lambda: None
    chain: int | None = None


class Table(NamedTuple):
    """The result of one benchmark.

    Attributes:
      title: what was measured.
      header: names of the columns.
      rows: cells, as text.
      note: how to read the table; "" for no note.
      data: the numbers of every repetition, for the JSON file.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str
    data: dict[str, Any]


def interleave(
    jobs: Mapping[Name, Job],
    *,
    seconds: float,
    repetitions: int,
    pause: float | None = None,
) -> dict[Name, list[float]]:
    """Times jobs in turns.

    Args:
      jobs: the jobs by name.
      seconds: time for each job over all repetitions. At least one call a repetition
        is made.
      repetitions: number of turns of each job.
      pause: seconds before each turn; None for `PAUSE`.

    Returns:
      The rates of each job in work per second, one a repetition.
    """
    calls = {}
    pause = PAUSE if pause is None else pause
    for name, job in jobs.items():
        _elapsed(job, 1, 0)  # compiles
        calls[name] = max(1, round(seconds / repetitions / _elapsed(job, 1, pause)))
    rates: dict[Name, list[float]] = {name: [] for name in jobs}
    for _ in range(repetitions):
        for name, job in jobs.items():
            rates[name].append(
                calls[name] * job.work / _elapsed(job, calls[name], pause)
            )
    return rates


def _elapsed(job: Job, calls: int, pause: float) -> float:
    time.sleep(pause)
    elapsed = 0.0
    while calls > 0:
        count = min(calls, job.chain or calls)
        job.prepare()
        start = time.perf_counter()
        job.run(count)
        elapsed += time.perf_counter() - start
        calls -= count
    return elapsed


def best_settings(
    rates: Mapping[tuple[str, str], list[float]],
) -> tuple[dict[str, list[float]], list[str]]:
    """Chooses the fastest setting of each row.

    Args:
      rates: rates by (row, setting), as from `interleave`.

    Returns:
      The rates of the fastest setting by row, and one sentence for each row of several
      settings that names the chosen one.
    """
    fastest, sentences = {}, []
    for row in dict.fromkeys(row for row, _ in rates):
        tried = {setting: rates[r, setting] for r, setting in rates if r == row}
        setting = max(tried, key=lambda name: statistics.median(tried[name]))
        fastest[row] = tried[setting]
        if len(tried) > 1:
            sentences.append(f"{row}: {setting}, the fastest of {', '.join(tried)}.")
    return fastest, sentences


def ratios(rates: Sequence[float], base: Sequence[float]) -> list[float]:
    """Divides rates by those of the same repetitions.

    Args:
      rates: a rate of each repetition.
      base: rates to divide by, of the same repetitions.
    """
    return [rate / other for rate, other in zip(rates, base, strict=True)]


def format_spread(values: Sequence[float], digits: int = 0) -> str:
    """Formats the median and the range of repetitions, as in "4 (3 to 5)".

    Args:
      values: a value of each repetition.
      digits: digits after the decimal point.
    """
    low, high = min(values), max(values)
    median = statistics.median(values)
    return f"{median:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def format_rates(values: Sequence[float]) -> str:
    """Formats rates or times: two decimals where one is below 20, otherwise none.

    Args:
      values: a value of each repetition.
    """
    return format_spread(values, 0 if min(values) >= 20 else 2)


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
      rates: rates by row.
      unit: the unit of the rates.
      base: the row that the ratios refer to.
      note: how to read the table.
      absent: the reasons why rows were not measured, by row; None for no such rows.
    """
    rows = [
        (name, format_rates(values), format_spread(ratios(values, rates[base]), 2))
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


def cost_table(
    title: str, rates: Mapping[str, list[float]], *, unit: str, base: str, note: str
) -> Table:
    """Makes a table of rates and of times as multiples of one of them.

    Args:
      title: what was measured.
      rates: rates by row.
      unit: the unit of the rates.
      base: the row whose time is 1.
      note: how to read the table.
    """
    rows = [
        (name, format_rates(values), format_spread(ratios(rates[base], values), 2))
        for name, values in rates.items()
    ]
    header = ("", unit, f"time as a multiple of {base}")
    return Table(title, header, rows, note, {"unit": unit, "rates": dict(rates)})


def absent_table(title: str, reason: str) -> Table:
    """Makes the table of a benchmark that cannot be measured here.

    Args:
      title: what was to be measured.
      reason: why not, beginning with "not measured: ".
    """
    return Table(title, ("",), [(reason,)], "", {"absent": {"": reason}})


def milliseconds(rates: Mapping[Name, list[float]]) -> dict[Name, list[float]]:
    """Converts calls per second to milliseconds per call.

    Args:
      rates: calls per second of each repetition, by name.
    """
    return {name: [1000 / rate for rate in values] for name, values in rates.items()}


def markdown(table: Table) -> str:
    """Formats a table as Markdown.

    Args:
      table: the table.
    """
    lines = [table.header, ("---",) * len(table.header), *table.rows]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    note = f"\n\n{table.note}" if table.note else ""
    return f"### {table.title}\n\n{body}{note}\n"
