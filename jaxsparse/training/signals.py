"""Exit codes of processes that a signal stopped.

This module does not import JAX, so that programs can install handlers before slow
imports.
"""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

# A scheduler may restart a job that its own notice (SIGTERM) stopped: 75 is EX_TEMPFAIL
# of sysexits.h, "try again later".
EXITS = {signal.SIGINT: 130, signal.SIGTERM: 75}
# All exit codes of a stopped child process, whether or not it had installed a handler;
# without one, `subprocess` reports the negative signal number.
STOPPED = (*EXITS.values(), *(-number for number in EXITS))

SECONDS_UNTIL_AGAIN = 0.05  # after a signal came where nothing can be raised


def end_when_told(*, what: str = "the same command continues") -> None:
    """Makes SIGINT and SIGTERM end this process with the exit codes of `EXITS`.

    It is meant for the time outside of `preemption.listening`, when nothing needs to be
    saved. Programs call it before their slow imports. In a run with several processes,
    JAX replaces the handler of SIGTERM.

    Args:
      what: text written to stderr after "stopped outside of training; ".
    """
    told: list[int] = []
    before = sys.unraisablehook

    def end(signum: int, frame: FrameType | None) -> None:
        del frame
        if not told:
            # Not `print`, which raises RuntimeError if the signal arrives during
            # another write to the stream.
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
