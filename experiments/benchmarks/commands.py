"""Runs the project's commands in processes of their own, and times them."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = {
    # As in `factory.set_up_jax`: all programs are cached.
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    # This process occupies most of a GPU's memory; the launched one must share it.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "PYTHONUNBUFFERED": "1",  # lines arrive when they are printed, as on a terminal
}
NO_TPU = "not measured: a TPU serves one process, and this process has it"


class Timed(NamedTuple):
    """A command that has ended.

    Attributes:
      start: wall-clock time at which it was given, in seconds since 1970.
      first_line: seconds to its first line of output.
      total: seconds to its end.
      lines: its output, errors included.
    """

    start: float
    first_line: float
    total: float
    lines: list[str]


def run(*words: str, cache: Path, to_first_line: bool = False) -> Timed:
    """Runs a command of Python in the project's folder.

    Args:
      *words: the script or `-m` and the module, and the arguments.
      cache: folder of compiled programs, which the command reads and fills.
      to_first_line: whether to stop the command after its first line of output.

    Returns:
      The times and the output.

    Raises:
      RuntimeError: if the command fails; the message has the end of its output.
    """
    environment = ENVIRONMENT | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    start = time.time()
    with subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        lines = [process.stdout.readline()]
        first_line = time.time() - start
        if to_first_line and lines[0]:
            process.terminate()
        lines += process.stdout
        code = process.wait()
    total = time.time() - start
    if code and not (to_first_line and lines[0]):
        raise RuntimeError(f"{' '.join(words)} failed: {''.join(lines)[-2000:]}")
    return Timed(start, first_line, total, [line.rstrip("\n") for line in lines])
