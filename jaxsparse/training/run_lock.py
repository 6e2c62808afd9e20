"""Locks a run directory, so that two processes do not write there at the same time."""

import fcntl
import logging
from pathlib import Path
from typing import Any

from jaxsparse.training import run_paths

# Errors of locking a file that another process has locked; other errors mean that the
# disk does not support locks.
TAKEN = (BlockingIOError, PermissionError)

log = logging.getLogger(__name__)


def acquire(workdir: Path) -> Any:
    """Creates a run directory if it does not exist, and locks it.

    Args:
      workdir: the run directory.

    Returns:
      The open lock file; closing it releases the lock.

    Raises:
      ValueError: if another process holds the lock.
      OSError: if the directory cannot be written.
    """
    run_paths.check(workdir)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        raise OSError(
            "--workdir: expected a directory that can be written to, got "
            f"{workdir} ({error.strerror}); choose another one with --workdir"
        ) from error
    try:
        # The system releases this lock when the process ends, however it ends.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except TAKEN as error:
        lock.close()
        raise ValueError(
            f"--workdir: another process is running in {workdir}; wait for it to end, "
            "or choose another --workdir; if its machine is gone and a network's disk "
            f"still keeps its lock, remove {workdir / '.lock'}"
        ) from error
    except OSError as error:  # file systems of some clusters do not support locks
        log.warning(
            "--workdir: %s cannot be locked (%s); nothing keeps a second process from "
            "writing there too",
            *(workdir, error.strerror),
        )
    return lock
