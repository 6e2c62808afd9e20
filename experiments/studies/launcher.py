"""Running a study: which runs, one after the other, and one report over them."""

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
    """Lists the runs asked for.

    Raises:
      ValueError: for an unknown scale or run, naming those there are.
    """
    if scale not in study.SCALES:
        raise ValueError(f"--scale: {scale!r}; wanted one of {study.SCALES}")
    runs = study.runs(scale)
    unknown = set(only) - {run.name for run in runs}
    if unknown:
        raise ValueError(
            f"--only: {sorted(unknown)}; wanted names of {[run.name for run in runs]}"
        )
    return [run for run in runs if not only or run.name in only]


def run_all(runs: Sequence[Run], folder: Path, data_dir: str) -> list[str]:
    """Runs what has not ended; a run that fails does not keep others from running.

    Returns:
      Names of the runs that failed. A run that was interrupted ends the study.
    """
    failed = []
    for place, run in enumerate(runs, start=1):
        steps = _steps(run, folder, data_dir)
        if steps:
            print(f"[{place} of {len(runs)}] {run.name}", file=sys.stderr)
        for step in steps:
            code = step()
            if code in signals.STOPPED:  # someone wants it to stop
                sys.exit(signals.EXITS.get(-code, code))
            if code:
                failed.append(run.name)
                break
    return failed


def _steps(run: Run, folder: Path, data_dir: str) -> list[Callable[[], int]]:
    """Lists what is still to be done of a run: training, and scores of examples."""
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
    """Scores the training examples by a run; returns the exit code."""
    where = [f"--data_dir={Path(data_dir).resolve()}"] if data_dir else []
    given = [f"--run={workdir}", f"--score={score}", f"--out={out}"]
    return _call(_script("score_data.py", *given, *run.scoring, *where))


def has_ended(run: Run, workdir: Path) -> bool:
    """Says whether a folder holds this very run, trained to its end.

    A run that started from another has ended only while that other is the same.
    """
    return standing(run, workdir) == ENDED


def standing(run: Run, workdir: Path) -> str:
    """Says how far a run is: "ended", or a reason why not."""
    try:
        saved = config.renames.read(workdir / "config.json")
    except (OSError, ValueError) as error:
        if metrics_log.is_of_machine(error):
            raise
        return "not begun"
    c = read(run)
    if any(True for _ in config.differences(saved, json.loads(c.to_json()))):
        return "of other settings"
    began = environment.starts_from(workdir).get("checkpoints")
    if began is not None and began != factory.recorded_hashes(c, workdir):
        return "of what has changed"
    levels = c.lottery.levels
    if records.has_ended(workdir, levels=levels) or _is_old_and_ended(c, workdir):
        return ENDED
    return "under way"


def missing(runs: Sequence[Run], folder: Path) -> dict[str, str]:
    """Says which runs of a study have not ended, and why not."""
    found = {run.name: standing(run, folder / run.name) for run in runs}
    return {name: why for name, why in found.items() if why != ENDED}


def _is_old_and_ended(c: ConfigDict, workdir: Path) -> bool:
    """Says so of a run from before there was a list of its stages."""
    last = f"level_{c.lottery.levels:02d}/ticket/last"
    more = c.lottery.controls or c.instability.copies
    return not more and checkpoints.exists(workdir / "checkpoints", last)


def launch(run: Run, workdir: Path, data_dir: str) -> int:
    """Runs one command of `train.py`, shows it, and returns its exit code."""
    return _call(command(run, workdir.parent, data_dir))


def command(run: Run, folder: Path, data_dir: str) -> list[str]:
    """Words the command that trains a run in its folder within that of all."""
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
    """Runs a command, shows it, and returns its exit code.

    A signal to this process asks the command to save and end, and then ends this
    process too: a second one does not cut the saving short.
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
        if asked:  # before there was a child to tell
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
    """Refuses datasets that are not there, once for all runs.

    Raises:
      ValueError: naming them.
    """
    wanted = {(c.data.name, data_dir or c.data.dir) for c in map(read, runs)}
    own = {spec.name for spec in config.DATASETS.own()}  # they know where they are
    for name, folder in sorted(wanted):
        if name not in own:
            datasets.check_there(name, data_dir=folder or None)


def report(runs: Sequence[Run], folder: Path) -> Path:
    """Writes the report on all of these runs that have begun; returns its page."""
    begun = [folder / run.name for run in runs]
    begun = [path for path in begun if (path / "config.json").exists()]
    return page.write(begun, folder / "report")


def copy(source: Path, results: Path, beginnings: tuple[str, ...]) -> None:
    """Copies what is worth keeping of a report: tables, and figures as PNG.

    What is there of an earlier report, and not in this one, is deleted.

    Args:
      source: folder of the report.
      results: folder to copy to.
      beginnings: of the names of the files to copy.
    """

    def wanted(folder: Path) -> dict[str, Path]:
        return {
            path.name: path
            for path in sorted(folder.iterdir())
            if path.name.startswith(beginnings)
            and path.suffix in (".md", ".csv", ".png")
        }

    results.mkdir(parents=True, exist_ok=True)
    new = wanted(source)
    for path in new.values():
        shutil.copy(path, results / path.name)
    for name, path in wanted(results).items():
        if name not in new:
            path.unlink()
