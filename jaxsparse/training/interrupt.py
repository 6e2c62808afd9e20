"""Stopping cleanly when asked to: Ctrl-C, or the notice before a machine goes."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):
    """A run stopped because it was asked to, with everything saved."""


class NonFinite(Exception):
    """A loss is NaN or infinite, so going on would compute nothing."""


@contextmanager
def listening() -> Iterator[Callable[[], bool]]:
    """Turns SIGINT and SIGTERM into a question that training asks between calls.

    A second SIGINT interrupts at once.

    Yields:
      A function that says whether to stop.
    """
    asked = False

    def remember(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        del frame
        if asked and signum == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True

    old = {s: signal.signal(s, remember) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
