"""The progress of a sweep: runs that are done, running or failed, and the time left."""

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from jaxsparse.training import progress

SECONDS_BETWEEN_LINES = 60.0  # if the output is not a terminal


class SweepProgress:
    """Updates one line in a terminal; prints lines to other outputs."""

    def __init__(self, runs: int, *, out: TextIO | None = None) -> None:
        """Starts the clock; no run has started yet.

        Args:
          runs: number of runs.
          out: where to print; None for stderr.
        """
        self._out = sys.stderr if out is None else out
        self._runs = runs
        self._start = time.monotonic()
        self._last_line: float | None = None
        self._last_codes: dict[str, int | None] = {}
        self._terminal = self._out.isatty()

    def show(self, codes: Mapping[str, int | None]) -> None:
        """Shows the progress, if it has changed or enough time has passed.

        Args:
          codes: exit codes of the runs that have started, by name; None while they run.
        """
        now = time.monotonic()
        for name, code in codes.items():
            if code and self._last_codes.get(name) is None:
                self._print(f"{name}: ended with exit code {code}")
        changed = self._last_codes != dict(codes)
        self._last_codes = dict(codes)
        line = describe(codes, runs=self._runs, spent=now - self._start)
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._out.write(f"\r\x1b[K{line[:width]}")
            self._out.flush()
        elif (
            changed
            or self._last_line is None
            or now - self._last_line > SECONDS_BETWEEN_LINES
        ):
            self._last_line = now
            self._print(line)

    def close(self) -> None:
        """Ends the line in a terminal."""
        if self._terminal:
            self._out.write("\n")
            self._out.flush()

    def _print(self, line: str) -> None:
        start = "\r\x1b[K" if self._terminal else ""
        print(f"{start}{line}", file=self._out, flush=True)


def describe(codes: Mapping[str, int | None], *, runs: int, spent: float) -> str:
    """Describes the progress of a sweep in one line.

    The time left assumes that the other runs take as long as those that have ended, and
    that half of each running one is done.

    Args:
      codes: exit codes of the runs that have started, by name; None while they run.
      runs: number of runs.
      spent: seconds since the first run was started.
    """
    running = [name for name, code in codes.items() if code is None]
    ended = [code for code in codes.values() if code is not None]
    failed = sum(code != 0 for code in ended)
    parts = [f"{len(ended) - failed} of {runs} runs done", f"{len(running)} running"]
    parts += [f"{failed} failed"] * (failed > 0)
    parts.append(f"{progress.clock(spent)} spent")
    if len(ended) < runs:
        left = float("inf")
        if ended:
            done = len(ended) + len(running) / 2
            left = spent / done * (runs - done)
        parts.append(f"{progress.clock(left)} left")
    return ", ".join(parts) + (f": {', '.join(running)}" if running else "")


def write_code(folder: Path, name: str, code: int | None) -> None:
    """Writes that a run has started or ended, for the process that shows the progress.

    Args:
      folder: folder with a file for each run; made if it does not exist.
      name: name of the run.
      code: its exit code; None while it runs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{name}"
    unfinished.write_text("" if code is None else str(code), encoding="utf-8")
    unfinished.replace(folder / name)


def read_codes(folder: Path) -> dict[str, int | None]:
    """Reads what `write_code` has written of every run that has started.

    Args:
      folder: directory of the codes; it may not exist.
    """
    if not folder.is_dir():
        return {}
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
    }
    return {name: int(text) if text else None for name, text in texts.items()}
