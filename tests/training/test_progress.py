"""What is shown while a run trains, in a terminal and elsewhere."""

import contextlib
import io
import os
import re
import sys
import termios

import pytest

from jaxsparse.training.progress import Progress

NOTE = "loss 0.1234, validation 97.12%, test 96.54%"


def shown(monkeypatch: pytest.MonkeyPatch, *, columns: int = 0) -> str:
    """Shows a stage of two, after a message; what was written.

    Args:
      monkeypatch: pytest's.
      columns: of the terminal; 0 for none.
    """
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    out = open(slave, "w") if columns else io.StringIO()  # noqa: SIM115
    with out, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", out)  # whose width tqdm asks for
        progress = Progress(2, 0)
        print("run: runs/some", file=out)
        progress.begin("level_00/children_000000400", start=0, step=0, stop=100)
        for step in (50, 100):
            progress.advance(step, note=NOTE)
        progress.end(note="test accuracy 96.54%")
        progress.begin("level_01/ticket", start=0, step=0, stop=100)
        progress.close()
        if isinstance(out, io.StringIO):
            return out.getvalue()
    # On a busy machine a terminal hands out in parts what was written to it.
    parts = []
    with contextlib.suppress(OSError):  # the end, once the other side is closed
        while part := os.read(master, 100_000):
            parts.append(part)
    os.close(master)
    written = b"".join(parts).decode()
    return written.replace("\r\n", "\n")  # a terminal's line feeds


def test_the_first_line_is_whole_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, columns=80)
    assert text.startswith("run: runs/some\n")
    assert "\r" not in text.partition("\n")[0]


@pytest.mark.parametrize("columns", [80, 200])
def test_what_came_out_is_shown_in_80_columns(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = shown(monkeypatch, columns=columns)
    lines = re.split(r"[\r\n]|\x1b\[A", text)
    assert max(map(len, lines)) <= columns
    assert any(f"000400  50%, {NOTE}" in line for line in lines)
    assert any("1 of 2 stages done, " in line and "96.54%" in line for line in lines)


def test_elsewhere_a_stage_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("level_00/children_000000400: done (1 of 2, about ")
    assert lines[1].endswith("test accuracy 96.54%")
