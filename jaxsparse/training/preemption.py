"""Clean stop on request: Ctrl-C, or the notice before a machine is preempted."""

import itertools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from jax.experimental import multihost_utils

from jaxsparse import multihost
from jaxsparse.training.signals import EXITS


class Preempted(Exception):
    """A run stopped on request, after everything was saved.

    Attributes:
      code: exit code with which the process should end.
    """

    def __init__(self, where: str, asked: int = signal.SIGINT) -> None:
        """Initializes the exception.

        Args:
          where: stage and step at which training stopped, used as the message.
          asked: number of the signal that requested the stop.
        """
        super().__init__(where)
        self.code = EXITS.get(asked, EXITS[signal.SIGINT])


class NonFiniteLoss(Exception):
    """A loss is NaN or infinite, so further training is useless."""


# A function that returns the number of the signal that requests a stop, or 0.
StopRequested = Callable[[], int]


@contextmanager
def listening() -> Iterator[StopRequested]:
    """Converts SIGINT and SIGTERM into a request that training polls between chunks.

    In a single process, a SIGINT that follows another signal raises KeyboardInterrupt
    at once. A request that came too late to stop training, as during the last chunk of
    a run, is not lost: when the context ends, the signal is raised once more, for the
    handler that was installed before. In a run with several processes, a SIGTERM to one
    of them stops all between the same two chunks, which JAX synchronizes; a SIGINT
    interrupts at once.

    Yields:
      A function that returns the number of the signal that requests a stop, or 0. All
      processes must call it equally often.
    """
    if multihost.is_multiprocess():
        # A handler of our own would replace JAX's, which synchronizes the processes.
        numbers = itertools.count()

        noticed = False

        def agreed() -> int:
            # JAX reports the notice once, possibly at the last chunk of a stage, where
            # training does not stop.
            nonlocal noticed
            reached = multihost_utils.reached_preemption_sync_point(next(numbers))
            noticed = noticed or reached
            return signal.SIGTERM if noticed else 0

        yield agreed
        return
    asked = 0

    def record(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        del frame
        if asked and signum == signal.SIGINT:
            raise KeyboardInterrupt
        asked = signum

    old = {s: signal.signal(s, record) for s in EXITS}
    try:
        yield lambda: asked
    except (Preempted, KeyboardInterrupt):
        asked = 0  # the request was met
        raise
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)
        if asked:
            signal.raise_signal(asked)
