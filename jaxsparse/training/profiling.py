"""What a run costs: time in the compiler, memory, and traces of chosen updates."""

import functools
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

# Of each program, also where it comes from the cache of earlier runs.
_COMPILED = "/jax/core/compile/backend_compile_duration"


@functools.cache
def _heard() -> list[float]:
    """Listens, once in a process, to what JAX says of its compiler."""
    durations: list[float] = []

    def hear(event: str, duration: float, **_: Any) -> None:
        if event == _COMPILED:
            durations.append(duration)

    jax.monitoring.register_event_duration_secs_listener(hear)
    return durations


class CostTracker:
    """What is spent from here on, until `so_far` is asked."""

    def __init__(self) -> None:
        """Begins to count."""
        self._before = len(_heard())

    def so_far(self) -> dict[str, Any]:
        """Says what was spent, for a record.

        Returns:
          `programs` that were compiled, or read from the cache, and the
          `compile_seconds` that this took; `peak_device_bytes`, the most that any
          device of this process has had in use since the process began, None where
          devices do not say; and `peak_host_bytes`, the most of the process itself.
          Of several processes each knows of itself alone, and the first writes.
        """
        since = _heard()[self._before :]
        stats = [device.memory_stats() or {} for device in jax.local_devices()]
        peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
        unit = 1 if sys.platform == "darwin" else 1024
        return {
            "programs": len(since),
            "compile_seconds": round(sum(since), 3),
            "peak_device_bytes": max(peaks, default=None),
            "peak_host_bytes": unit
            * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }


class Tracer:
    """Writes a `jax.profiler` trace of some updates, of the first stage that has them.

    Where a trace is there, none is written again.
    """

    def __init__(self, span: tuple[int, ...], folder: Path) -> None:
        """Prepares to trace from one reading of the clock to another; () for never."""
        self._span = () if folder.exists() else span
        self._folder, self._on = folder, False

    def see(self, state: Any, step: int) -> None:
        """Begins or ends the trace if it is time to; waits for the devices first."""
        if step not in self._span:
            return
        jax.block_until_ready(state)
        if step == self._span[0]:
            jax.profiler.start_trace(str(self._folder))
            self._on = True
        elif self._on:
            self.close()

    def close(self) -> None:
        """Ends a trace that is under way; there will be no other."""
        if self._on:
            jax.profiler.stop_trace()
            self._on, self._span = False, ()


@contextmanager
def tracing(span: tuple[int, ...], folder: Path) -> Iterator[Tracer]:
    """Makes a tracer, and ends its trace also where training is interrupted."""
    tracer = Tracer(span, folder)
    try:
        yield tracer
    finally:
        tracer.close()
