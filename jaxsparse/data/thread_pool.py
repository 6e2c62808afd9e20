"""Threads that decode and read files, one per CPU core of this process."""

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def cores() -> int:
    """Returns the number of CPU cores available to this process."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """Returns the thread pool of a process.

    Args:
      process: process id. It is part of the cache's key since a forked process inherits
        the cache but not the threads.
    """
    return ThreadPoolExecutor(cores(), f"images-{process}")


def in_threads(task: Callable[[int], Result], numbers: Iterable[int]) -> list[Result]:
    """Runs a task for each number, in one thread per core, and waits for all.

    All callers share the threads. A task must therefore not call this function: its
    thread would wait for tasks that no thread is free to run.

    Args:
      task: function of one number.
      numbers: arguments of the calls.

    Returns:
      The results, in the order of `numbers`.
    """
    return list(_pool(os.getpid()).map(task, numbers))
