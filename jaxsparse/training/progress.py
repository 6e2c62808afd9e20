"""Displays the progress of a run: bars on a terminal, plain lines elsewhere."""

import io
import sys
import time
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0
NAME_LENGTH = 20  # longest stage name in a bar, so that a bar fits into 80 columns
# The most important fields first, because tqdm cuts the end on a narrow terminal.
STAGES = "{n_fmt} of {total_fmt} stages done{postfix}, {remaining} left |{bar}|"
STEPS = "{desc} {percentage:3.0f}%{postfix}, {remaining} left, {rate_fmt} |{bar}|"


class Progress:
    """Displays the stages of a run and the steps of the current stage.

    Shows the speed and the time left. It holds the state of a terminal and no results.
    """

    def __init__(
        self, stages: int, done: int, *, out: io.TextIOBase | None = None
    ) -> None:
        """Initializes the display.

        Args:
          stages: number of stages of the run.
          done: number of stages finished in earlier sessions.
          out: stream to write to; None writes to stderr.
        """
        self._out = sys.stderr if out is None else out
        self._bars = self._out.isatty()
        self._stages, self._done = stages, done
        self._began = time.monotonic()
        self._finished_here = 0
        self._outer = self._inner = None  # bars, made when a stage begins

    def begin(self, name: str, *, start: int, step: int, stop: int) -> None:
        """Starts a stage.

        Args:
          name: name of the stage.
          start: training step at which the stage begins.
          step: training step from which it is resumed; `start` if it is new.
          stop: training step at which the stage ends.
        """
        self._name, self._start, self._stop = name, start, stop
        self._from, self._since = step, time.monotonic()
        self._line = self._since
        if not self._bars:
            return
        # Made only now, because output printed before would break the bar.
        if self._outer is None:
            self._outer = self._bar(
                total=self._stages, initial=self._done, bar_format=STAGES
            )
        cut = len(name) > NAME_LENGTH
        self._inner = self._bar(
            total=stop - start,
            initial=step - start,
            desc=f"...{name[3 - NAME_LENGTH :]}" if cut else name,
            unit="step",
            leave=False,
            bar_format=STEPS,
        )

    def _bar(self, **about: Any) -> tqdm:
        return tqdm(file=self._out, dynamic_ncols=True, **about)

    def advance(self, step: int, *, note: str = "") -> None:
        """Updates the current stage.

        Args:
          step: present training step.
          note: short text to show beside it, such as the loss.
        """
        if self._inner is not None:
            self._inner.update(step - self._start - self._inner.n)
            if note:
                self._inner.set_postfix_str(note)
        elif time.monotonic() - self._line > SECONDS_BETWEEN_LINES:
            self._line = time.monotonic()
            rate = (step - self._from) / (self._line - self._since)
            left = (self._stop - step) / rate if rate else float("inf")
            self._say(
                f"{self._name}: step {step} of {self._stop} "
                f"({rate:.0f} steps/s, {clock(left)} left) {note}"
            )

    def end(self, *, note: str = "") -> None:
        """Ends the current stage.

        Args:
          note: short text to show beside the stage, such as its accuracy.
        """
        self._done += 1
        self._finished_here += 1
        if self._inner is not None:
            self._inner.close()
            self._outer.update(1)
            self._outer.set_postfix_str(f"{self._name}: {note}")
            return
        spent = time.monotonic() - self._began
        left = spent / self._finished_here * max(0, self._stages - self._done)
        self._say(
            f"{self._name}: done ({self._done} of {self._stages}, about "
            f"{clock(left)} left) {note}"
        )

    def close(self) -> None:
        """Closes the bars, so that the terminal can be used normally."""
        for bar in (self._inner, self._outer):
            if bar is not None:
                bar.close()

    def _say(self, line: str) -> None:
        print(line.rstrip(), file=self._out, flush=True)


def clock(seconds: float) -> str:
    """Formats a number of seconds as h:mm:ss or m:ss; "?" for infinity.

    Args:
      seconds: seconds, at least 0, or infinity.
    """
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
