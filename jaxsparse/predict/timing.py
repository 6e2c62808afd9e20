"""Interleaved timing of functions that are compared."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# Turns of each function. A busy machine disturbs a few turns, and so not the median.
TURNS = 5


class Time(NamedTuple):
    """Measured time of one call, in milliseconds.

    Attributes:
      median: median over the turns.
      low: shortest.
      high: longest.
    """

    median: float
    low: float
    high: float


def interleave(
    jobs: Mapping[Any, Callable[[], Any]], *, seconds: float
) -> dict[Any, Time]:
    """Times functions in turns, A B A B ..., after two calls each that compile.

    Args:
      jobs: functions by name; each waits for its result.
      seconds: time for each function over all turns. At least one call is made in
        each turn.

    Returns:
      The time of a call by name.

    Examples:
      >>> interleave({"nothing": lambda: None}, seconds=1e-3)["nothing"].median < 1
      True
    """
    calls = {}
    for name, job in jobs.items():
        job()
        calls[name] = max(1, round(seconds / TURNS / max(_elapsed(job, 1), 1e-7)))
    times: dict[Any, list[float]] = {name: [] for name in jobs}
    for _ in range(TURNS):
        for name, job in jobs.items():
            times[name].append(1000 * _elapsed(job, calls[name]) / calls[name])
    return {
        name: Time(statistics.median(each), min(each), max(each))
        for name, each in times.items()
    }


def singles(
    jobs: Mapping[Any, Callable[[], Any]], *, seconds: float
) -> dict[Any, Time]:
    """Times single calls of functions in turns, without calls that compile.

    Args:
      jobs: functions by name, which have been called before; each waits for its result.
      seconds: time for all functions together. No turn is started after it, but one is
        always made, and at most `TURNS`.

    Returns:
      The time of a call by name.
    """
    times: dict[Any, list[float]] = {name: [] for name in jobs}
    start = time.perf_counter()
    for turn in range(TURNS):
        if turn and time.perf_counter() - start > seconds:
            break
        for name, job in jobs.items():
            times[name].append(1000 * _elapsed(job, 1))
    return {
        name: Time(statistics.median(each), min(each), max(each))
        for name, each in times.items()
    }


def _elapsed(job: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        job()
    return time.perf_counter() - start
