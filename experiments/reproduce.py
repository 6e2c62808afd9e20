"""Reruns studies: all runs of one or of all, and a page of verdicts on each.

    python experiments/reproduce.py --study=tost --scale=quick
    python experiments/reproduce.py --study=all --scale=cifar16 --hours=2.5 \
        --data_dir=DIR
    python experiments/reproduce.py --study=all --scale=cifar16 --pages

All runs are trained in this process, one after the other. When one has ended, what was
measured of it goes to a small file in `--results`/STUDY/SCALE/records, and a run with
such a file is done: the run directories are not needed any more, except for runs that
start from others. In the default folder committed files count too: another `--results`
trains everything anew. The command stops at a checkpoint after `--hours`, or when it
gets SIGTERM, and the same command continues: this suits queues with a time limit and
machines that may be preempted. At the end, pages are made from these files; `--pages`
makes them at any time.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jaxsparse.training import signals  # noqa: E402

CONTINUES = "the same command continues the study"
if __name__ == "__main__":
    signals.end_when_told(what=CONTINUES)

from absl import flags  # noqa: E402

from experiments import command_line, studies  # noqa: E402

_STUDY = flags.DEFINE_enum("study", None, ["all", *studies.NAMES], "study to rerun")
_SCALE = flags.DEFINE_enum("scale", "quick", studies.SCALES, "size of the study")
_HOURS = flags.DEFINE_float(
    "hours", None, "stop at a checkpoint after this time; default: no limit", 0
)
_PAGES = flags.DEFINE_bool("pages", False, "train nothing, and only make the pages")
_DATA_DIR = command_line.data_dir()
_WORKDIR = command_line.workdir("the run directories; default: runs/")
_RESULTS = flags.DEFINE_string(
    "results",
    None,
    "folder of measurements and pages; default: experiments/results, for the scale "
    "quick the one of --workdir",
)
_ONLY = flags.DEFINE_list("only", [], "names of runs; default: all")


def main(argv: Sequence[str]) -> int:
    """Trains and measures what is not done, and writes the pages.

    Args:
      argv: the command line, of which absl has parsed the flags.

    Returns:
      The exit code: 0, 1 if a run failed, or that of the signal that stopped it.
    """
    del argv
    try:
        if _STUDY.value is None:
            names = ", ".join(["all", *studies.NAMES])
            raise ValueError(f"--study: missing; expected one of {names}")
        folder = command_line.folder_of_runs(_WORKDIR, ROOT / "runs")
        usual = folder if _SCALE.value == "quick" else ROOT / "experiments" / "results"
        results = command_line.path(_RESULTS) or usual
        data_dir = command_line.folder_of_data(_DATA_DIR)
        # Imported here, so that errors in a command are found before JAX is imported.
        from experiments.studies import driver

        tasks = driver.in_order(_tasks(folder, results, data_dir))
        if not _PAGES.value:
            left = [task.run for task in tasks if not driver.is_done(task)]
            driver.check_data(left, data_dir)
    except ValueError as error:
        command_line.fail(str(error))
    failed: list[str] = []
    if not _PAGES.value:
        from jaxsparse.training import preemption

        try:
            with driver.stopping_after(_HOURS.value):
                failed = driver.run_all(tasks)
        except preemption.Preempted as stop:
            done = sum(driver.is_done(task) for task in tasks)
            left = len(tasks) - done
            print(f"stopped: {done} runs done, {left} left; {CONTINUES}")
            return stop.code
    for study in _chosen():
        page = folder / f"{study.name}-{_SCALE.value}" / "report"
        kept = results / study.name / _SCALE.value
        if not (kept / "records").exists():
            print(f"no report: {study.name} has no measurements in {kept}")
        else:
            print(f"report: {study.keep_report(_SCALE.value, page, kept)}")
    from experiments.studies import overview

    everything = [_study(name) for name in studies.NAMES]
    if overview.write([study for study in everything if study.paper], results):
        print(f"all claims: {results / 'README.md'}")
    if failed:
        print(f"failed: {', '.join(failed)}; the same command tries them again")
        return 1
    return 0


def _chosen() -> list[Any]:
    """Returns the studies of the command line."""
    names = studies.NAMES if _STUDY.value == "all" else (_STUDY.value,)
    return [_study(name) for name in names]


def _study(name: str) -> Any:
    """Imports a study."""
    return importlib.import_module(f"experiments.studies.{name}").STUDY


def _tasks(folder: Path, results: Path, data_dir: str) -> list[Any]:
    """Lists the runs of the command line.

    Raises:
      ValueError: for an unknown run; the message lists those that exist.
    """
    from experiments.studies import driver

    tasks = []
    for study in _chosen():
        listed = study.all_runs(_SCALE.value)
        places = driver.Places(
            runs=folder / f"{study.name}-{_SCALE.value}",
            records=results / study.name / _SCALE.value / "records",
            data_dir=data_dir,
        )
        tasks += [driver.Task(study, run, listed, places) for run in listed]
    if not tasks:
        raise ValueError(
            f"--scale: expected a scale with runs of {_STUDY.value}, got "
            f"{_SCALE.value}; choose another"
        )
    names = [task.run.name for task in tasks]
    unknown = sorted(set(_ONLY.value) - set(names))
    if unknown:
        raise ValueError(
            f"--only: expected names of {names}, got {unknown}; correct or remove them"
        )
    return [task for task in tasks if not _ONLY.value or task.run.name in _ONLY.value]


if __name__ == "__main__":
    command_line.run(main)
