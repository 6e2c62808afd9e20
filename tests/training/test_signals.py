"""A signal ends a process whatever it does, also where training comes to its end."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jaxsparse.training import preemption, signals

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


@contextmanager
def handlers() -> Iterator[None]:
    """Those of a program that is started, for the time of the context."""
    old = {number: signal.getsignal(number) for number in signals.EXITS}
    hook = sys.unraisablehook
    try:
        signals.end_when_told()
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in old.items():
            signal.signal(number, handler)


def succeed() -> None:
    pass


def diverge() -> None:
    raise preemption.NonFiniteLoss("loss is NaN")


@pytest.mark.parametrize("end", [succeed, diverge])
@pytest.mark.parametrize("number", signals.EXITS)
def test_a_request_that_training_could_not_meet_ends_the_program_after_it(
    number: int, end: Callable[[], None]
) -> None:
    """A study would otherwise go on to its next run."""
    trained = []
    with handlers(), pytest.raises(SystemExit) as stop:
        with preemption.listening() as asked:
            signal.raise_signal(number)
            trained.append(asked())
            end()
        pytest.fail("the request was lost")
    assert trained == [number]
    assert stop.value.code == signals.EXITS[number]


def test_a_request_that_training_met_is_not_repeated() -> None:
    with handlers():
        with pytest.raises(preemption.Preempted), preemption.listening() as asked:
            signal.raise_signal(signal.SIGTERM)
            raise preemption.Preempted("train, step 3", asked())
        with pytest.raises(KeyboardInterrupt), preemption.listening():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
        with preemption.listening() as asked:
            assert asked() == 0
