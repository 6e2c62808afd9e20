"""Exit codes of processes that a signal stopped; importing this does not import JAX."""

import os
import signal
import sys
from types import FrameType

# A scheduler may start again what its own notice (SIGTERM) stopped: 75 is "try again
# later" in the sysexits of Unix.
EXITS = {signal.SIGINT: 130, signal.SIGTERM: 75}
# Exit codes of a child process that was stopped, with or without a handler.
STOPPED = (*EXITS.values(), *(-number for number in EXITS))


def end_when_told(*, what: str = "the same command continues") -> None:
    """Makes SIGINT and SIGTERM end this process with the codes of `EXITS`.

    For the time outside of `interrupt.listening`, in which nothing needs to be saved;
    programs call this before their slow imports. JAX takes SIGTERM over where it joins
    other processes.

    Args:
      what: said on stderr after "stopped outside of training; ".
    """

    def end(signum: int, frame: FrameType | None) -> None:
        del frame
        os.write(2, f"stopped outside of training; {what}\n".encode())
        sys.exit(EXITS[signum])

    for number in EXITS:
        signal.signal(number, end)
