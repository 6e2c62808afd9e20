"""Stopping cleanly when asked to: Ctrl-C, or the notice before a machine goes."""

import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from jax.experimental import multihost_utils

from jaxsparse import multihost
from jaxsparse.training.signals import EXITS


class Preempted(Exception):
    """A run stopped because it was asked to, with everything saved.

    Attributes:
      code: with what its process should end.
    """

    def __init__(self, where: str, asked: int = signal.SIGINT) -> None:
        """Says where, and the number of the signal that asked."""
        super().__init__(where)
        self.code = EXITS.get(asked, EXITS[signal.SIGINT])


class NonFiniteLoss(Exception):
    """A loss is NaN or infinite, so going on would compute nothing."""


# The number of the signal that asks to stop, 0 if none does.
StopRequested = Callable[[], int]


@contextmanager
def listening() -> Iterator[StopRequested]:
    """Turns SIGINT and SIGTERM into a question that training asks between calls.

    A second SIGINT interrupts at once. Of several processes, a SIGTERM to any stops
    all between the same two calls, which JAX agrees on for them; a SIGINT interrupts.

    Yields:
      A function that says which signal asks to stop; in all processes it must be asked
      equally often.
    """
    if multihost.is_multiprocess():
        # Ours would take the signal away from JAX.
        numbers = itertools.count()

        noticed = False

        def agreed() -> int:
            nonlocal noticed  # JAX says so once, and a stage may end just there
            reached = multihost_utils.reached_preemption_sync_point(next(numbers))
            noticed = noticed or reached
            return signal.SIGTERM if noticed else 0

        yield agreed
        return
    asked = 0

    def remember(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        del frame
        if asked and signum == signal.SIGINT:
            raise KeyboardInterrupt
        asked = signum

    old = {s: signal.signal(s, remember) for s in EXITS}
    try:
        yield lambda: asked
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
