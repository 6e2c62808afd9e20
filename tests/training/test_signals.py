"""A signal outside of training ends a process, whatever that was doing."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, time
from jaxsparse.training import signals

class Last:
    def __del__(self):  # what is raised here, Python ignores
        os.kill(os.getpid(), {number})
        time.sleep(0)

signals.end_when_told(what="go on")
{what}
time.sleep(20)
"""


@pytest.mark.parametrize("what", ["Last()", "os.kill(os.getpid(), {number})"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)]
)
def test_a_signal_ends_a_process_also_within_a_destructor(
    root: Path, what: str, number: int, code: int
) -> None:
    text = PROGRAM.replace("{what}", what).replace("{number}", str(int(number)))
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == code
    assert done.stderr == "stopped outside of training; go on\n"
