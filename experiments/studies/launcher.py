"""Launcher: runs the runs of a study one after the other."""

import functools
import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from ml_collections import ConfigDict

from experiments.studies.runs import Run, flags, read
from jaxsparse import config, factory, metrics_log
from jaxsparse.data import datasets
from jaxsparse.reports import page
from jaxsparse.runner import records
from jaxsparse.training import checkpoints, environment, signals

ENDED = "ended"
ROOT = Path(__file__).resolve().parent.parent.parent


def choose(study: Any, scale: str, only: Sequence[str]) -> list[Run]:
    """Lists the selected runs of a study.

    Args:
      study: `STUDY` of a study.
      scale: one of `studies.SCALES`.
      only: names of runs; empty for all.

    Raises:
      ValueError: for an unknown run; the message lists those that exist.
    """
    runs = study.runs(scale)
    unknown = set(only) - {run.name for run in runs}
    if unknown:
        raise ValueError(
            f"--only: expected names of {[run.name for run in runs]}, got "
            f"{sorted(unknown)}"
        )
    return [run for run in runs if not only or run.name in only]


def run_all(runs: Sequence[Run], folder: Path, data_dir: str) -> list[str]:
    """Runs what has not ended; after a failed run, the others still run.

    Args:
      runs: the runs, those that others start from first.
      folder: directory of all runs.
      data_dir: directory of prepared datasets; "" for the one in the configs.

    Returns:
      Names of the runs that failed. An interrupted run ends the process.
    """
    failed = []
    for place, run in enumerate(runs, start=1):
        steps = _steps(run, folder, data_dir)
        if steps:
            print(f"[{place} of {len(runs)}] {run.name}", file=sys.stderr)
        for step in steps:
            code = step()
            if code in signals.STOPPED:  # interrupted by a user or a scheduler
                sys.exit(signals.EXITS.get(-code, code))
            if code:
                failed.append(run.name)
                break
    return failed


def _steps(run: Run, folder: Path, data_dir: str) -> list[Callable[[], int]]:
    """Lists the remaining steps of a run: training, and scoring examples."""
    workdir = folder / run.name
    trains = not has_ended(run, workdir)
    steps = [functools.partial(launch, run, workdir, data_dir)] if trains else []
    for score, name in run.scores.items():
        if trains or not (folder / name).exists():
            steps.append(
                functools.partial(_score, run, score, workdir, folder / name, data_dir)
            )
    return steps


def _score(run: Run, score: str, workdir: Path, out: Path, data_dir: str) -> int:
    """Scores the training examples by a run, and returns the exit code."""
    where = [f"--data_dir={Path(data_dir).resolve()}"] if data_dir else []
    given = [f"--run={workdir}", f"--score={score}", f"--out={out}"]
    return _call(_script("score_data.py", *given, *run.scoring, *where))


def has_ended(run: Run, workdir: Path) -> bool:
    """Returns whether a directory contains this run, trained to its end.

    Args:
      run: the run.
      workdir: its run directory. A run that started from another one has ended only as
        long as the other is unchanged.
    """
    return status(run, workdir) == ENDED


def status(run: Run, workdir: Path) -> str:
    """Returns "ended", or the reason why a run has not ended.

    Args:
      run: the run.
      workdir: its run directory.
    """
    try:
        saved = config.renames.read(workdir / "config.json")
    except (OSError, ValueError) as error:
        if metrics_log.is_of_machine(error):
            raise
        return "not started"
    c = read(run)
    if any(True for _ in config.differences(saved, json.loads(c.to_json()))):
        return "has other settings"
    began = environment.starts_from(workdir).get("checkpoints")
    if began is not None and began != factory.recorded_hashes(c, workdir):
        return "started from a run that has changed"
    levels = c.lottery.levels
    if records.has_ended(workdir, levels=levels) or _is_old_and_ended(c, workdir):
        return ENDED
    return "in progress"


def missing(runs: Sequence[Run], folder: Path) -> dict[str, str]:
    """Returns the runs that have not ended, with the reason.

    Args:
      runs: runs of a study.
      folder: directory of all runs.
    """
    found = {run.name: status(run, folder / run.name) for run in runs}
    return {name: why for name, why in found.items() if why != ENDED}


def _is_old_and_ended(c: ConfigDict, workdir: Path) -> bool:
    """Returns whether a run of a version without a list of stages has ended."""
    last = f"level_{c.lottery.levels:02d}/ticket/last"
    more = c.lottery.controls or c.instability.copies
    return not more and checkpoints.exists(workdir / "checkpoints", last)


def launch(run: Run, workdir: Path, data_dir: str) -> int:
    """Trains a run by `train.py`, and returns the exit code.

    Args:
      run: the run.
      workdir: its run directory.
      data_dir: directory of prepared datasets; "" for the one in the config.
    """
    return _call(command(run, workdir.parent, data_dir))


def command(run: Run, folder: Path, data_dir: str) -> list[str]:
    """Returns the command that trains a run.

    Args:
      run: the run.
      folder: directory of all runs.
      data_dir: directory of prepared datasets; "" for the one in the config.
    """
    where = {"data.dir": str(Path(data_dir).resolve())} if data_dir else {}
    return _script(
        "train.py",
        f"--config={run.config}",
        *flags(run.overrides | where),
        "--noreport",
        f"--workdir={folder / run.name}",
    )


def _script(name: str, *words: str) -> list[str]:
    return [sys.executable, str(ROOT / "experiments" / name), *words]


def _call(command: Sequence[str]) -> int:
    """Prints and runs a command, and returns its exit code.

    A signal to this process is passed on once, so that the command saves its state and
    ends; then this process ends too.
    """
    print(shlex.join(command), file=sys.stderr)
    asked: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def pass_on(signum: int, frame: FrameType | None) -> None:
        del frame
        asked.append(signum)
        if child is not None:
            child.send_signal(signal.SIGTERM)

    old = {number: signal.signal(number, pass_on) for number in signals.EXITS}
    try:
        child = subprocess.Popen(command)
        if asked:  # before the child was started
            child.send_signal(signal.SIGTERM)
        code = child.wait()
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    if asked:
        print("stopped; the same command continues the study", file=sys.stderr)
        sys.exit(signals.EXITS[asked[0]])
    return code


def check_data(runs: Sequence[Run], data_dir: str) -> None:
    """Checks that the datasets of all runs are prepared.

    Args:
      runs: the runs.
      data_dir: directory of prepared datasets; "" for the one in the configs.

    Raises:
      ValueError: if one is missing; the message names it.
    """
    wanted = {(c.data.name, data_dir or c.data.dir or "") for c in map(read, runs)}
    own = {spec.name for spec in config.DATASETS.own()}  # readers of users' own data
    for name, folder in sorted(wanted):
        if name not in own:
            datasets.check_there(name, data_dir=folder or None)


def report(runs: Sequence[Run], folder: Path) -> Path:
    """Writes the report on those of the runs that have started.

    Args:
      runs: the runs.
      folder: directory of all runs; the report goes to `report/` in it.

    Returns:
      The path of the page.
    """
    started = [folder / run.name for run in runs]
    started = [path for path in started if (path / "config.json").exists()]
    return page.write(started, folder / "report")


def copy(source: Path, results: Path, prefixes: tuple[str, ...]) -> None:
    """Copies the tables of a report, and its figures as PNG.

    Files of an earlier report that this one does not have are deleted.

    Args:
      source: directory of the report.
      results: directory to copy to.
      prefixes: prefixes of the names of the files.
    """

    def wanted(folder: Path) -> dict[str, Path]:
        return {
            path.name: path
            for path in sorted(folder.iterdir())
            if path.name.startswith(prefixes) and path.suffix in (".md", ".csv", ".png")
        }

    results.mkdir(parents=True, exist_ok=True)
    new = wanted(source)
    for path in new.values():
        shutil.copy(path, results / path.name)
    for name, path in wanted(results).items():
        if name not in new:
            path.unlink()
