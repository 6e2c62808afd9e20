"""Applies a function to the parts of a long list in several processes.

`multiprocessing` is not used, since its processes either are forks, which hang beside
the threads of JAX, or import the user's main script again, which then trains in each of
them unless it is guarded by `if __name__ == "__main__"`. The processes here import
nothing but the function. They receive parts and return results through pipes.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from jaxsparse.data import thread_pool

Part = TypeVar("Part", bound=Sequence[Any])
Result = TypeVar("Result")

PART = 1000  # items that a process receives at once
MIN_ITEMS = 5000  # items for each process; with fewer, starting it takes too long


def map_parts(
    function: Callable[[Part], Result], items: Part, *, processes: int | None = None
) -> Iterator[Result]:
    """Applies a function to consecutive parts of a list.

    Args:
      function: function of a part, without side effects. It must be defined in a module
        whose import is fast, and its results must be picklable.
      items: the list; its parts must be picklable.
      processes: number of processes, at least 1; with 1, the function runs in this
        process. None starts one per CPU core, but none with fewer than `MIN_ITEMS`
        items.

    Yields:
      The result of each part of `PART` items, in order. A part is computed in this
      process if another one fails on it, so that errors are those of `function`.
    """
    parts = [items[i : i + PART] for i in range(0, len(items), PART)]
    if processes is None:
        processes = min(thread_pool.cores(), len(items) // MIN_ITEMS)
    if processes < 2:
        yield from map(function, parts)
        return
    with contextlib.ExitStack() as stack:
        free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for _ in range(processes):
            free.put(stack.enter_context(contextlib.closing(_Worker(function))))
        threads = stack.enter_context(ThreadPoolExecutor(processes, "parts"))

        def apply(part: Part) -> Result:
            worker = free.get()
            try:
                answered, result = worker(part)
            finally:
                free.put(worker)
            return result if answered else function(part)

        yield from threads.map(apply, parts)


class _Worker:
    """A process that applies one function."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        """Starts the process, which is dead if that fails."""
        self._process: subprocess.Popen[bytes] | None = None
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        # -P, so that Python does not search the working directory for modules.
        command = [sys.executable, "-P", "-m", __name__]
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": paths},
            )
            pickle.dump(function, self._process.stdin)

    def __call__(self, part: Any) -> tuple[bool, Any]:
        """Returns whether the process succeeded, and its result."""
        if self._process is None:
            return False, None
        try:
            pickle.dump(part, self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
            return pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            self.close()
            return False, None

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # of input that is not flushed yet
                pipe.close()
        process.wait()


def _serve() -> None:
    """Answers the requests of a `_Worker`, in the process that it started."""
    # On Ctrl-C the parent decides when to end: it closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keeps whatever is printed out of the answers
    with contextlib.suppress(EOFError, BrokenPipeError):
        function = pickle.load(requests)
        while True:
            part = pickle.load(requests)
            try:
                answer = True, function(part)
            except Exception:
                answer = False, None
            pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()


if __name__ == "__main__":
    _serve()
