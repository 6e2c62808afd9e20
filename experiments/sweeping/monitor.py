"""How far a sweep is: runs done, running and failed, and the time that is left."""

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from jaxsparse.training import progress

SECONDS_BETWEEN_LINES = 60.0  # where there is no terminal


class SweepProgress:
    """Shows one line in a terminal; elsewhere a line now and then."""

    def __init__(self, runs: int, *, jobs: int, out: TextIO | None = None) -> None:
        """Begins with none of the runs begun.

        Args:
          runs: how many there are.
          jobs: how many may run at once.
          out: where to show; None for stderr.
        """
        self._out = sys.stderr if out is None else out
        self._runs, self._jobs = runs, jobs
        self._began = time.monotonic()
        self._said: float | None = None
        self._before: dict[str, int | None] = {}
        self._terminal = self._out.isatty()

    def show(self, states: Mapping[str, int | None]) -> None:
        """Shows how far the runs are, if it has changed or it is time to.

        Args:
          states: of runs that were begun: None while they run, then the exit code.
        """
        now = time.monotonic()
        for name, code in states.items():
            if code and self._before.get(name) is None:
                self._print(f"{name}: ended with exit code {code}")
        is_new = self._before != dict(states)
        self._before = dict(states)
        line = describe(
            states, runs=self._runs, jobs=self._jobs, spent=now - self._began
        )
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._out.write(f"\r\x1b[K{line[:width]}")
            self._out.flush()
        elif is_new or self._said is None or now - self._said > SECONDS_BETWEEN_LINES:
            self._said = now
            self._print(line)

    def close(self) -> None:
        """Leaves the terminal at the beginning of a line."""
        if self._terminal:
            self._out.write("\n")
            self._out.flush()

    def _print(self, line: str) -> None:
        start = "\r\x1b[K" if self._terminal else ""
        print(f"{start}{line}", file=self._out, flush=True)


def describe(
    states: Mapping[str, int | None], *, runs: int, jobs: int, spent: float
) -> str:
    """Words how far a sweep is.

    Args:
      states: as for `SweepProgress.show`.
      runs: how many there are.
      jobs: how many may run at once.
      spent: seconds since the first was begun.

    Returns:
      One line. The time left is that of the runs that ended, for those that have not:
      `jobs` at once, and half of each that runs.
    """
    running = [name for name, code in states.items() if code is None]
    ended = [code for code in states.values() if code is not None]
    failed = sum(code != 0 for code in ended)
    parts = [f"{len(ended) - failed} of {runs} runs done", f"{len(running)} running"]
    parts += [f"{failed} failed"] * (failed > 0)
    parts.append(f"{progress.clock(spent)} spent")
    if len(ended) < runs:
        left = float("inf")
        if ended:
            each = spent * min(jobs, runs) / (len(ended) + len(running) / 2)
            left = each * (runs - len(ended) - len(running) / 2) / min(jobs, runs)
        parts.append(f"{progress.clock(left)} left")
    return ", ".join(parts) + (f": {', '.join(running)}" if running else "")


def note(folder: Path, name: str, code: int | None) -> None:
    """Notes that a run was begun or has ended, for the process that shows it.

    Args:
      folder: of notes, made if it is not there.
      name: of the run.
      code: its exit code; None while it runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / f".{name}"
    half.write_text("" if code is None else str(code), encoding="utf-8")
    half.replace(folder / name)


def read(folder: Path) -> dict[str, int | None]:
    """Reads what was noted of each run that was begun."""
    if not folder.is_dir():
        return {}
    found: dict[str, int | None] = {}
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            text = path.read_text(encoding="utf-8")
            found[path.name] = int(text) if text else None
    return found
