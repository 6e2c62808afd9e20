"""Parts computed in other processes are those that this process would compute."""

import functools
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxsparse.data import decoding, processes

SHAPE = (5, 4, 3)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    monkeypatch.setattr(processes, "PART", 7)
    generator, contents = np.random.default_rng(0), []
    for _ in range(40):
        buffer = io.BytesIO()
        pixels = generator.integers(0, 256, SHAPE, dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    return contents


decode = functools.partial(decoding.records, shape=SHAPE)


def test_results_are_in_order(encoded: list[bytes]) -> None:
    parts = list(processes.map_parts(decode, encoded, processes=3))
    assert [len(part) for part in parts] == [7, 7, 7, 7, 7, 5]
    np.testing.assert_array_equal(np.concatenate(parts), decode(encoded))


def test_errors_are_those_of_the_function(encoded: list[bytes]) -> None:
    # The first of the damaged images is the one to be named.
    encoded[8], encoded[20] = encoded[8][:50], b"text"
    messages = set()
    for count in (1, 2):
        with pytest.raises(Exception, match="truncated") as caught:
            list(processes.map_parts(decode, encoded, processes=count))
        messages.add((caught.type, str(caught.value)))
    assert len(messages) == 1


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false"])
def test_without_other_processes_this_one_computes(
    encoded: list[bytes], monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    monkeypatch.setattr(sys, "executable", python)
    parts = list(processes.map_parts(decode, encoded, processes=2))
    np.testing.assert_array_equal(np.concatenate(parts), decode(encoded))


def test_a_short_list_starts_no_process(
    encoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)  # would fail if it were called
    parts = list(processes.map_parts(decode, encoded))
    np.testing.assert_array_equal(np.concatenate(parts), decode(encoded))


def test_a_script_without_guard_runs_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from jaxsparse.data import processes\n"
        "print('run')\n"
        "processes.PART = 2\n"
        "print(list(processes.map_parts(sum, [1, 2, 3, 4, 5], processes=2)))\n"
    )
    ran = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True
    )
    assert (ran.stdout, ran.stderr) == ("run\n[3, 7, 5]\n", "")
