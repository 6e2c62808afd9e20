"""Exit codes of processes that a signal stopped; importing this does not import JAX."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

# A scheduler may start again what its own notice (SIGTERM) stopped: 75 is "try again
# later" in the sysexits of Unix.
EXITS = {signal.SIGINT: 130, signal.SIGTERM: 75}
# Exit codes of a child process that was stopped, with or without a handler.
STOPPED = (*EXITS.values(), *(-number for number in EXITS))

SECONDS_UNTIL_AGAIN = 0.05  # after a signal came where nothing can be raised


def end_when_told(*, what: str = "the same command continues") -> None:
    """Makes SIGINT and SIGTERM end this process with the codes of `EXITS`.

    For the time outside of `interrupt.listening`, in which nothing needs to be saved;
    programs call this before their slow imports. JAX takes SIGTERM over where it joins
    other processes.

    Args:
      what: said on stderr after "stopped outside of training; ".
    """
    told: list[int] = []
    before = sys.unraisablehook

    def end(signum: int, frame: FrameType | None) -> None:
        del frame
        if not told:
            os.write(2, f"stopped outside of training; {what}\n".encode())
        told.append(signum)
        sys.exit(EXITS[signum])

    def try_again(ignored: Any) -> None:
        # A destructor or callback of the garbage collector ran when the signal came;
        # what is raised there, Python ignores.
        if isinstance(ignored.exc_value, SystemExit) and told:
            timer = threading.Timer(
                SECONDS_UNTIL_AGAIN, os.kill, (os.getpid(), told[-1])
            )
            timer.daemon = True
            timer.start()
        else:
            before(ignored)

    sys.unraisablehook = try_again
    for number in EXITS:
        signal.signal(number, end)
