"""Whole processes, really killed: what they end with is what one process ends with."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import tiny

import jaxsparse
from jaxsparse import metrics_log

# A process that hangs is killed after this many seconds, and the test fails.
PATIENCE = 300


class Result(NamedTuple):
    """How a process ended."""

    code: int
    errors: str


class Command:
    """experiments/train.py on tests/helpers/tiny.py, again and again in one folder."""

    def __init__(self, root: Path, cache: Path, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.log = folder.with_name(f"{folder.name}.log")
        self._words = [
            *(sys.executable, str(root / "experiments" / "train.py")),
            *("--config=tests/helpers/tiny.py", f"--workdir={folder}"),
            *("--noreport", *flags),
        ]
        self._environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            # Not the cache of everyone else: a kill may leave half an entry in it.
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "PYTHONWARNINGS": "ignore",
        }

    def launch(self) -> subprocess.Popen:
        with self.log.open("w") as log:
            return subprocess.Popen(
                self._words,
                env=self._environment,
                cwd=self.folder.parent,  # any working directory does
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, process: subprocess.Popen) -> Result:
        try:
            code = process.wait(PATIENCE)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        return Result(code, self.log.read_text())

    def run(self) -> Result:
        return self.end(self.launch())

    def interrupt(
        self, ready: Callable[[], bool], *, delay: float = 0.0, by: int = signal.SIGKILL
    ) -> Result:
        """Sends a signal `delay` seconds after `ready`, unless it ends before."""
        process = self.launch()
        until = time.monotonic() + PATIENCE
        while process.poll() is None and not ready() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(delay)
        if process.poll() is None:
            process.send_signal(by)
        return self.end(process)

    def records(self) -> int:
        path = self.folder / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0


def outcome(folder: Path) -> dict[str, Any]:
    """All that must be equal, bit for bit."""
    rows = metrics_log.read(folder / "metrics.jsonl")
    found: dict[str, Any] = {
        "records": sorted(
            metrics_log.to_line(row) for row in rows if row["kind"] != "timing"
        )
    }
    directory = folder / "checkpoints"
    for path in sorted(directory.rglob("*.json")):
        note = json.loads(path.read_text())
        if "hash" in note:
            found[str(path.relative_to(directory))] = note["hash"]
    for path in sorted((folder / "tickets").rglob("*.npz")):
        with np.load(path) as packed:
            found[str(path.relative_to(folder))] = {
                k: v.tobytes() for k, v in packed.items()
            }
    return found


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Command]:
    root = Path(__file__).resolve().parent.parent.parent
    shared = tmp_path_factory.mktemp("resume")

    def command(name: str, *flags: str) -> Command:
        return Command(root, shared / "cache", shared / name, *flags)

    return command


SHORT = "--config.lottery.levels=1"  # instead of 5, which campaigns train


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Trained here, as whole processes train it."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    c = tiny.get_config()
    c.lottery.levels = 1
    jaxsparse.run(c, folder, report=False)
    return checked(folder, levels=1)


@pytest.fixture(scope="module")
def long_uninterrupted(make: Callable[..., Command]) -> dict[str, Any]:
    command = make("long_uninterrupted")
    result = command.run()
    assert result.code == 0, result.errors
    return checked(command.folder, levels=5)


def checked(folder: Path, *, levels: int) -> dict[str, Any]:
    """Reads a run of two replicates that was not interrupted."""
    found = outcome(folder)
    # The ticket of level 0, then a ticket and two controls a level; each has at least
    # five records of each replicate.
    stages = 1 + 3 * levels
    assert len(found["records"]) > 10 * stages
    assert sum(name.endswith("last.json") for name in found) == stages
    assert {"init.json", "rewind.json"} <= found.keys()
    assert sum(name.endswith(".npz") for name in found) == 2 * levels
    return found


def kill_until_done(command: Command, kills: int, seed: int) -> int:
    """Kills a run at random moments, and lets it end after that; counts the kills."""
    generator = random.Random(seed)
    done = 0
    for _ in range(kills):
        # Some moments of starting up, most of them between or within records.
        if generator.random() < 0.2:
            ready: Callable[[], bool] = lambda: True  # noqa: E731
            delay = generator.uniform(0, 8)
        else:
            target = command.records() + generator.randrange(1, 9)
            ready = lambda target=target: command.records() >= target  # noqa: E731
            delay = generator.uniform(0, 0.2)
        result = command.interrupt(ready, delay=delay)
        assert result.code in (0, -signal.SIGKILL), result.errors
        done += result.code == -signal.SIGKILL
    result = command.run()
    assert result.code == 0, result.errors
    return done


def check_clean(folder: Path) -> None:
    """Nothing of the killed processes is left where checkpoints are."""
    left = [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if "tmp" in path.name or path.name.startswith("step_")
    ]
    assert left == []


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(6))
def test_many_kills_change_no_bit(
    make: Callable, long_uninterrupted: dict, seed: int
) -> None:
    command = make(f"campaign_{seed}")
    assert kill_until_done(command, 10, seed=seed) == 10
    assert outcome(command.folder) == long_uninterrupted
    check_clean(command.folder)


def flip(folder: Path) -> None:
    """Flips a bit in the largest file of a checkpoint."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    victim = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0x10
    victim.write_bytes(bytes(content))


def test_ctrl_c_corrupt_checkpoints_and_two_kills_change_no_bit(
    make: Callable, uninterrupted: dict
) -> None:
    """One folder, ended three times before it is done."""
    command = make("stopped", SHORT)
    directory = command.folder / "checkpoints"
    ended = directory / "level_00" / "ticket" / "last.json"
    result = command.interrupt(ended.exists, by=signal.SIGINT)
    assert result.code == 130, result.errors
    last = result.errors.splitlines()[-1]
    assert last.startswith("stopped at level_01/ticket, step "), result.errors
    assert last.endswith("; the same command continues there")
    assert "Traceback" not in result.errors

    names = ("init", "rewind", "level_00/ticket/last")
    for name in names:
        flip(directory / name)
    assert kill_until_done(command, 2, seed=0) == 2
    for name in names:
        assert (directory / f"{name}.corrupt-0").is_dir()
    assert outcome(command.folder) == uninterrupted
    check_clean(command.folder)


@pytest.mark.campaign
def test_a_loss_that_is_not_finite_is_one_error_after_its_record(
    make: Callable,
) -> None:
    command = make("diverged", "--config.schedule.learning_rate=1e6")
    result = command.run()
    assert result.code == 1
    assert "Traceback" not in result.errors
    (error,) = [x for x in result.errors.splitlines() if x.startswith("error: ")]
    assert error.startswith("error: pretraining, step ")
    assert "is not finite; the last record was written; try a lower" in error
    rows = metrics_log.read(command.folder / "metrics.jsonl")
    assert [row["loss"] for row in rows if row["kind"] == "train"][-2:] == [None, None]
