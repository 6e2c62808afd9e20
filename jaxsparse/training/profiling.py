"""Measures the cost of a run: compilation time, memory, and profiler traces."""

import functools
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

# Recorded for each program, also if it comes from the persistent compilation cache.
_COMPILED = "/jax/core/compile/backend_compile_duration"


@functools.cache
def _heard() -> list[float]:
    """Returns the list of compilation times, to which a listener appends.

    The listener is registered once per process. Every caller gets the same list.
    """
    durations: list[float] = []

    def hear(event: str, duration: float, **_: Any) -> None:
        if event == _COMPILED:
            durations.append(duration)

    jax.monitoring.register_event_duration_secs_listener(hear)
    return durations


class CostTracker:
    """Counts compilation time and peak memory from its creation on."""

    def __init__(self) -> None:
        """Starts counting compilations."""
        self._before = len(_heard())

    def so_far(self) -> dict[str, Any]:
        """Returns the cost so far, as fields of a record.

        Each process counts its own programs and memory only; the primary process writes
        the record.

        Returns:
          A dict with four fields. `programs`: number of programs compiled or read from
          the compilation cache. `compile_seconds`: time this took. `peak_device_bytes`:
          peak memory of the fullest device of this process since the process started;
          None where devices do not report it. `peak_host_bytes`: peak resident memory
          of this process.
        """
        # The list belongs to the process; earlier entries are of other runs.
        since = _heard()[self._before :]
        stats = [device.memory_stats() or {} for device in jax.local_devices()]
        peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
        # `ru_maxrss` is in bytes on macOS and in KiB on Linux.
        unit = 1 if sys.platform == "darwin" else 1024
        return {
            "programs": len(since),
            "compile_seconds": round(sum(since), 3),
            "peak_device_bytes": max(peaks, default=None),
            "peak_host_bytes": unit
            * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }


class Tracer:
    """Writes a `jax.profiler` trace of some steps, in the first stage that has them.

    An existing trace directory is never overwritten.
    """

    def __init__(self, span: tuple[int, ...], folder: Path) -> None:
        """Initializes a tracer that has not started.

        Args:
          span: first and last training step of the trace; () traces nothing.
          folder: directory to write; if it exists, nothing is traced.
        """
        self._span = () if folder.exists() else span
        self._folder, self._on = folder, False

    def __call__(self, step: int, state: Any) -> None:
        """Starts or stops the trace if this is its first or last step.

        Args:
          step: training step of the state.
          state: state at this step. Its arrays are waited for, so that the trace starts
            and ends with idle devices.
        """
        if step not in self._span:
            return
        jax.block_until_ready(state)
        if step == self._span[0]:
            jax.profiler.start_trace(str(self._folder))
            self._on = True
        elif self._on:
            self.close()

    def close(self) -> None:
        """Stops a running trace; no other trace is started afterward."""
        if self._on:
            jax.profiler.stop_trace()
            self._on, self._span = False, ()


@contextmanager
def tracing(span: tuple[int, ...], folder: Path) -> Iterator[Tracer]:
    """Makes a tracer and stops its trace on exit, even if training is interrupted.

    Args:
      span: first and last training step of the trace; () traces nothing.
      folder: directory to write; if it exists, nothing is traced.
    """
    tracer = Tracer(span, folder)
    try:
        yield tracer
    finally:
        tracer.close()
