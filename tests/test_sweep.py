"""Sweeps: the runs of a grid, their execution, their progress and their report."""

import contextlib
import fcntl
import importlib.machinery
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest

from experiments.studies.runs import read
from experiments.sweeping import executors, gpus, monitor, report
from experiments.sweeping import points as grid_points
from jaxsparse import config, runs
from jaxsparse.training import state as state_lib

GPUS = gpus.VISIBLE
RECIPES = ("configs/set_mnist.py:quick", "configs/rigl_mnist.py:quick")
VARIED = ("sparse.sparsity=0.8,0.9,0.95",)
FIXED = ("data.name=digits", "run.tensorboard=false")


def make(**more: Any) -> list[grid_points.Point]:
    given = {"recipes": RECIPES, "varied": VARIED, "fixed": FIXED, "seeds": 3}
    return grid_points.make(**given | more)


def test_every_combination_is_a_point_and_seeds_share_a_run() -> None:
    points = make(varied=(*VARIED, "optimizer.momentum=0.0,0.9"))
    assert len(points) == 2 * 3 * 2
    (run,) = points[1].runs
    assert run.name == "set_mnist_quick-sparsity_0.8-momentum_0.9"
    assert run.config == RECIPES[0]
    assert run.overrides == {
        "data.name": "digits",
        "run.tensorboard": False,
        "sparse.sparsity": 0.8,
        "optimizer.momentum": 0.9,
        "replicates": 3,
    }
    assert len({run.name for point in points for run in point.runs}) == 12


OWN = """
import jaxsparse
from jaxsparse import config

@jaxsparse.register_score("swept_score")
def swept_score(params, kept):
    return params

def get_config(preset=""):
    c = config.default()
    c.name = f"own_{preset}"
    c.sparse.method = "static"
    c.sparse.pai_score = "swept_score"
    return c
"""


def test_a_config_file_elsewhere_is_swept(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    try:
        points = make(recipes=[f"{path}:a"], fixed=())
        assert [point.runs[0].name for point in points] == [
            f"own_a-sparsity_{sparsity}" for sparsity in (0.8, 0.9, 0.95)
        ]
        (run,) = points[1].runs
        assert run.config == f"{path}:a"  # which train.py takes
        c = read(run)
        assert (c.name, c.sparse.pai_score, c.sparse.sparsity) == (
            *("own_a", "swept_score"),
            0.9,
        )
    finally:
        config.SCORES.remove("swept_score")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "{} cannot be run: ZeroDivisionError: division by zero"),
        ("import no_such_module", "{} cannot be run: ModuleNotFoundError: No module"),
        ("x = 1", "expected get_config(preset) in {}, got none"),
    ],
)
def test_a_config_file_that_makes_none_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.py"
    path.write_text(text)
    wanted = re.escape(f"--config: {message.format(path)}")
    with pytest.raises(ValueError, match=f"^{wanted}"):
        make(recipes=[str(path)])


def test_seeds_that_do_not_fit_together_are_runs_of_their_own() -> None:
    (point,) = make(recipes=RECIPES[:1], varied=(), seeds=5, seeds_per_run=2)
    assert [run.name for run in point.runs] == [
        "set_mnist_quick-seeds_0_to_1",
        "set_mnist_quick-seeds_2_to_3",
        "set_mnist_quick-seeds_4_to_4",
    ]
    seeds = [
        (run.overrides["seeds.first"], run.overrides["replicates"])
        for run in point.runs
    ]
    assert seeds == [(0, 2), (2, 2), (4, 1)]


def test_recipes_that_are_alike_without_sparsity_share_a_dense_reference() -> None:
    points = make(varied=(*VARIED, "optimizer.momentum=0.0,0.9"), dense=True)
    sparse, dense = points[:12], points[12:]
    assert [point.values for point in dense] == [
        {"sparse.method": "none", "optimizer.momentum": momentum}
        for momentum in ("0.0", "0.9")
    ]
    (run,) = dense[1].runs
    assert run.name == "set_mnist_quick-method_none-momentum_0.9"
    c = read(run)
    assert (c.optimizer.momentum, c.replicates, c.data.name) == (0.9, 3, "digits")
    assert c.sparse == config.default().sparse
    ends = pd.DataFrame(
        {"recipe": point.recipe, **point.values}
        | {"weights_remaining_percent": 1.0, "test_accuracy_percent": 9.0, "seed": 0}
        for point in points
    )
    assert report.summarize(ends, points)["Seeds"].tolist() == ["1"] * len(
        sparse + dense
    )


def test_a_replicate_is_the_same_in_whatever_run() -> None:
    numbers = {"init": 1, "data": 2, "masks": 3}
    every = state_lib.make_seeds(**numbers, replicates=5)
    last = state_lib.make_seeds(**numbers, replicates=2, first=3)
    for whole, part in zip(every, last, strict=True):
        np.testing.assert_array_equal(
            jax.random.key_data(whole)[3:], jax.random.key_data(part)
        )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"recipes": ()}, "^--config: missing; give one or more recipes"),
        ({"seeds": 0}, "^--seeds: expected 1 or more, got 0"),
        ({"seeds_per_run": -1}, "^--seeds_per_run: expected 0 or more, got -1"),
        (
            {"varied": ("sparse.sparsity",)},
            "^--vary: expected FIELD=VALUE,VALUE, got 'sparse.sparsity'",
        ),
        ({"fixed": ("=3",)}, "^--set: expected FIELD=VALUE, got '=3'"),
        ({"fixed": ("sparse.sparsty=0.5",)}, "did you mean sparse.sparsity"),
        (
            {"varied": ("sparse.sparsity=0.8,x",)},
            "sparsity: expected a number like .*, got 'x'",
        ),
        ({"varied": ("sparse.sparsity=0.8,1.5",)}, "sparsity_1.5: config.sparse"),
        (
            {"fixed": ("replicates=7",)},
            "expected no 'replicates'; give the number of seeds by",
        ),
        (
            {"fixed": ("sparse.sparsity=0.5",)},
            "expected each field once, got 'sparse.sparsity'",
        ),
        (
            {"recipes": ("/elsewhere/set_mnist.py",)},
            "--config: no file '/elsewhere.*_mnist.py",
        ),
        (
            {"recipes": ("configs/unknown.py",)},
            "--config: no file 'configs/unknown.py'",
        ),
        (
            {"fixed": ("run.tensorboard=no",)},
            "run.tensorboard: expected true or false, got 'no'",
        ),
        (
            {"fixed": ("model.features=3",)},
            "config.model.features: expected a field that is a number",
        ),
        ({"varied": ("sparse.sparsity=0.8,0.8",)}, "expected runs of different names"),
        ({"recipes": RECIPES[:1] * 2}, "expected runs of different names"),
    ],
)
def test_what_makes_no_grid_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**more)


def test_points_are_summarized_over_their_seeds() -> None:
    points = make(recipes=RECIPES[:1])
    ends = pd.DataFrame(
        {
            "recipe": RECIPES[0],
            "sparse.sparsity": at,
            "seed": seed,
            "weights_remaining_percent": 100 - 100 * float(at),
            "test_accuracy_percent": accuracy,
        }
        for at, accuracies in (("0.8", (90.0, 92.0)), ("0.95", (70.0,)))
        for seed, accuracy in enumerate(accuracies)
    )
    shown = report.summarize(ends, points)
    assert shown["Seeds"].tolist() == ["2", "0", "1"]
    assert shown["Test accuracy (%)"].tolist() == ["91.00 ± 1.41", "", "70.00"]
    assert report.summarize(pd.DataFrame(), points)["Seeds"].tolist() == ["0"] * 3


def write(folder: Path, name: str, text: str, code: int = 0) -> Any:
    """A command that writes a line to a file that all write to, and ends."""
    script = f"open({str(folder / 'said')!r}, 'a').write({text!r}); exit({code})"
    return folder / name, [sys.executable, "-c", script]


def test_commands_are_run_in_order_until_a_signal_stops_one(tmp_path: Path) -> None:
    """A command that fails keeps no other from running; one that is stopped does."""
    ends = {"a": 0, "b": 1, "c": 75, "d": 0}
    listed = [write(tmp_path, n, n, code=code) for n, code in ends.items()]
    codes = executors.run_all(
        listed, executor="local", jobs=1, logs=tmp_path / "jobs", options={}
    )
    assert codes == {"a": 0, "b": 1, "c": 75, "d": 75}
    assert (tmp_path / "said").read_text() == "abc"


def test_a_job_that_is_lost_has_failed(tmp_path: Path) -> None:
    missing = (tmp_path / "a", ["/nowhere/python"])
    codes = executors.run_all(
        [missing], executor="local", jobs=3, logs=tmp_path / "jobs", options={}
    )
    assert codes == {"a": 1}
    nothing = {"executor": "local", "jobs": 1, "logs": tmp_path / "none", "options": {}}
    assert executors.run_all([], **nothing) == {}


def test_a_run_directory_that_another_process_uses_is_waited_for(
    tmp_path: Path,
) -> None:
    folder, command = write(tmp_path, "a", "mine")
    folder.mkdir()
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        worker = threading.Thread(target=executors.Commands([(folder, command)]))
        worker.start()
        time.sleep(0.5)
        assert not (tmp_path / "said").exists()
    worker.join(timeout=60)
    assert (tmp_path / "said").read_text() == "mine"


def test_a_job_at_its_time_limit_stops_and_is_submitted_again(
    root: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    child = (
        "import pathlib, signal, sys, time\n"
        f"said = pathlib.Path({str(said)!r})\n"
        "def save(*_):\n    said.write_text('saved')\n    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "said.write_text('began')\n"
        "time.sleep(60)\n"
    )
    # As in a job: the signal comes to the thread that waits for the child.
    job = (
        "import pathlib, signal, sys\n"
        "from experiments.sweeping import executors\n"
        f"command = [sys.executable, '-c', {child!r}]\n"
        f"folder = pathlib.Path({str(tmp_path / 'a')!r})\n"
        "commands = executors.Commands([(folder, command)])\n"
        "def asked(*_):\n"
        "    again = commands.checkpoint()\n"
        "    assert isinstance(again.function, executors.Commands)\n"
        "    sys.exit(33)\n"
        "signal.signal(signal.SIGUSR2, asked)\n"
        "commands()\n"
    )
    running = subprocess.Popen([sys.executable, "-c", job], cwd=root)
    try:
        patience = time.monotonic() + 60
        while not (said.exists() and said.read_text() == "began"):
            assert time.monotonic() < patience
            time.sleep(0.02)
        running.send_signal(signal.SIGUSR2)
        assert running.wait(timeout=60) == 33
    finally:
        running.kill()
        running.wait()
    assert said.read_text() == "saved"


def test_local_jobs_see_their_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "PLUGINS", ("json",))  # as if JAX had GPUs
    script = (
        "import os, pathlib, sys\n"
        "said = pathlib.Path(sys.argv[1])\n"
        "said.write_text(repr(os.environ.get('CUDA_VISIBLE_DEVICES')))\n"
    )
    files = [tmp_path / "said_a", tmp_path / "said_b"]
    every = [
        (tmp_path / path.name[-1], [sys.executable, "-c", script, str(path)])
        for path in files
    ]
    for before, given, after in (
        ("1,2", every, ["'1'", "'2'"]),
        (None, every[:1], ["None", "'2'"]),
    ):
        if before is None:
            monkeypatch.delenv(GPUS, raising=False)
        else:
            monkeypatch.setenv(GPUS, before)
        logs = tmp_path / f"jobs_{before}"
        how = {"executor": "local", "jobs": len(given), "logs": logs, "options": {}}
        executors.run_all(given, **how)
        assert [path.read_text() for path in files] == after


@pytest.mark.parametrize(
    ("jobs", "given", "found"),
    [
        (1, {}, [None]),
        (2, {}, ["0,2", "1"]),
        (2, {"XLA_CLIENT_MEM_FRACTION": "0.4"}, ["0,2", "1"]),
        (2, {GPUS: "0", "XLA_CLIENT_MEM_FRACTION": "0.4"}, ["0", "0"]),
        (2, {GPUS: "0", "XLA_PYTHON_CLIENT_ALLOCATOR": "platform"}, ["0", "0"]),
        (2, {GPUS: "-1"}, ["-1", "-1"]),
        (2, {GPUS: "3,1,-1,2"}, ["3", "1"]),
        (3, {GPUS: "4,5,GPU-x"}, ["4", "5", "GPU-x"]),
        (2, {GPUS: ""}, ["", ""]),
        (5, {"JAX_PLATFORMS": "cpu"}, [None] * 5),
        (4, {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}, ["0", "1", "2", "0"]),
    ],
)
def test_local_jobs_have_gpus_of_their_own(
    jobs: int,
    given: dict[str, str],
    found: list[str | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpus, "PLUGINS", ("json",))  # as if JAX had GPUs
    for number in range(3):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
    divided = gpus.divide(jobs, given, driver=tmp_path)
    assert divided == [{GPUS: names} for names in found]


def test_more_local_jobs_than_accelerators_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = {GPUS: "0,1"}
    assert gpus.divide(3, some) == [some] * 3  # which JAX cannot use here
    monkeypatch.setattr(gpus, "PLUGINS", ("json",))
    with pytest.raises(
        ValueError, match="^--jobs: expected at most 2, the number of GPUs, .*, got 3;"
    ):
        gpus.divide(3, some)
    assert gpus.divide(3, {}, driver=tmp_path)[0] == {GPUS: None}
    monkeypatch.setattr(gpus.launchers, "on_tpu", lambda environment: True)
    libtpu = types.ModuleType("libtpu")
    libtpu.__spec__ = importlib.machinery.ModuleSpec("libtpu", None)
    monkeypatch.setitem(sys.modules, "libtpu", libtpu)
    with pytest.raises(
        ValueError, match="^--jobs: expected 1 on a TPU, .*, got 2; give"
    ):
        gpus.divide(2, {})
    given = write(tmp_path, "a", "a")
    options = {"gpus_per_node": 1}
    with pytest.raises(
        ValueError, match="^--option: expected no gpus_per_node for local"
    ):
        executors.run_all(
            [given], executor="local", jobs=1, logs=tmp_path, options=options
        )


def test_options_that_submitit_refuses_are_an_error(tmp_path: Path) -> None:
    given = write(tmp_path, "a", "a")
    with pytest.raises(
        ValueError, match="^--executor, --option: expected .*'local' with.*mem"
    ):
        executors.run_all(
            [given], executor="local", jobs=1, logs=tmp_path, options={"memory": 3}
        )


def test_the_progress_of_a_sweep_is_one_line() -> None:
    given = {"runs": 5, "spent": 60.0}
    assert (
        monitor.describe({}, **given)
        == "0 of 5 runs done, 0 running, 1:00 spent, ? left"
    )
    # 3 of 5 runs in 60 s: 2 whole ones and half of each of 2 others.
    codes = {"a": 0, "b": 1, "c": None, "d": None}
    assert monitor.describe(codes, **given) == (
        "1 of 5 runs done, 2 running, 1 failed, 1:00 spent, 0:40 left: c, d"
    )
    ended = dict.fromkeys("abcde", 0)
    assert monitor.describe(ended, **given) == "5 of 5 runs done, 0 running, 1:00 spent"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_sweep_shows_its_progress(
    terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: terminal)
    shown = monitor.SweepProgress(2, out=out)
    assert monitor.read_codes(tmp_path / "codes") == {}
    for name, code in (("a", None), ("a", 3), ("b", None), ("b", 0)):
        monitor.write_code(tmp_path / "codes", name, code)
        for _ in range(3):  # a line is not repeated without a change
            shown.show(monitor.read_codes(tmp_path / "codes"))
    shown.close()
    said = out.getvalue()
    assert said.count("a: ended with exit code 3\n") == 1
    lines = [line for line in re.split(r"\r\x1b\[K|\n", said) if "runs done" in line]
    assert [line.partition(",")[0] for line in dict.fromkeys(lines)][-1] == (
        "1 of 2 runs done"
    )
    assert terminal or len(lines) == 4
    assert terminal == ("\r" in said)


def sweep(root: Path, folder: Path, *more: str) -> list[str]:
    """The command of a grid on digits."""
    return [
        *(sys.executable, str(root / "experiments" / "sweep.py")),
        *("--set=data.name=digits", "--set=run.tensorboard=false"),
        *(f"--workdir={folder}", *more),
    ]


def kill(command: list[str], begun: Path, number: int) -> None:
    """Sends a signal to all of a sweep once that file is there."""
    running = subprocess.Popen(
        command, start_new_session=True, stderr=subprocess.DEVNULL
    )
    try:
        patience = time.monotonic() + 240
        while not begun.exists():
            assert time.monotonic() < patience and running.poll() is None
            time.sleep(0.02)
        os.killpg(running.pid, number)
        running.wait(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


SMALL = "configs/dense_digits.py:quick"
SEEDS_APART = (
    *(f"--config={SMALL}", "--set=sparse.method=static"),
    *("--set=training.duration=4step", "--set=evaluation.every=4step"),
    *("--vary=sparse.sparsity=0.9", "--seeds=2", "--seeds_per_run=1"),
)
APART = "dense_digits_quick-sparsity_0.9-seeds_{0}_to_{0}"


def run_to_end(command: list[str], left: int) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{left} of 2 runs are left" in done.stderr


def check_seeds_apart(folder: Path) -> None:
    page = folder / "report"
    ends = pd.read_csv(page / "sweep.csv")
    assert ends["seed"].tolist() == [0, 1]
    assert (ends["weights_remaining_percent"] - 10).abs().max() < 0.01
    for seed in (0, 1):
        made = json.loads((folder / APART.format(seed) / "config.json").read_text())
        assert made["seeds"]["first"] == seed
    assert (page / "index.html").exists()
    assert "| 2 |" in (page / "sweep.md").read_text()


@pytest.mark.campaign
def test_a_sweep_of_seeds_apart_is_one_report(root: Path, tmp_path: Path) -> None:
    """With processes of its own; one run is left, as after a stop."""
    fixed = [word.removeprefix("--set=") for word in SEEDS_APART if "--set" in word]
    (point,) = make(
        recipes=(SMALL,),
        varied=("sparse.sparsity=0.9",),
        fixed=(*FIXED, *fixed),
        seeds=2,
        seeds_per_run=1,
    )
    first, _ = point.runs
    assert first.name == APART.format(0)
    runs.train(read(first), tmp_path / first.name)
    before = (tmp_path / first.name / "metrics.jsonl").read_bytes()
    run_to_end(sweep(root, tmp_path, *SEEDS_APART), left=1)
    assert (tmp_path / first.name / "metrics.jsonl").read_bytes() == before
    check_seeds_apart(tmp_path)


@pytest.mark.campaign
def test_a_sweep_of_seeds_apart_that_was_killed_is_one_report(
    root: Path, tmp_path: Path
) -> None:
    command = sweep(root, tmp_path, *SEEDS_APART)
    kill(command, tmp_path / APART.format(1) / "config.json", signal.SIGKILL)
    for left in (1, 0):
        run_to_end(command, left)
    check_seeds_apart(tmp_path)


@pytest.mark.campaign
def test_a_grid_ends_alike_whatever_it_went_through(root: Path, tmp_path: Path) -> None:
    grid_of_27 = (
        *(f"--config={recipe}" for recipe in (*RECIPES, "configs/gmp_mnist.py:quick")),
        *(f"--vary={VARIED[0]}", "--seeds=3", "--jobs=2"),
    )
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = sweep(root, killed, *grid_of_27)
    begun = "set_mnist_quick-sparsity_0.95", "rigl_mnist_quick-sparsity_0.95"
    for name, number in zip(begun, (signal.SIGKILL, signal.SIGINT), strict=True):
        kill(command, killed / name / "metrics.jsonl", number)
    for again in (command, sweep(root, whole, *grid_of_27)):
        done = subprocess.run(again, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        print(done.stderr, done.stdout)
    ends, wanted = (
        pd.read_csv(folder / "report" / "sweep.csv") for folder in (killed, whole)
    )
    pd.testing.assert_frame_equal(ends, wanted, check_exact=True)
    assert len(ends) == 27
    print((killed / "report" / "sweep.md").read_text())
