"""Reruns a study: all its runs, one after the other, and one report over them.

    python experiments/reproduce.py --study=sparse_training --scale=quick
    python experiments/reproduce.py --study=sparse_training --scale=cpu \
        --data_dir=DIR --results=experiments/results/sparse_mnist

Each run is a command of `train.py`, which is shown; the same command again goes on
where the study was stopped. Results go to runs/<study>-<scale> unless `--workdir` says
otherwise. `--results` copies the tables and figures of the report to a folder.
"""

import importlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from absl import app, flags  # noqa: E402

from experiments.studies.runs import Run  # noqa: E402
from experiments.studies.runs import flags as as_flags  # noqa: E402
from jaxsparse.reports import page  # noqa: E402

STUDIES = ("sparse_training",)
_STUDY = flags.DEFINE_enum("study", None, STUDIES, "what to rerun")
_SCALE = flags.DEFINE_string("scale", "quick", "how much of it; each study has its own")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder of prepared TFDS datasets")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the study's runs")
_RESULTS = flags.DEFINE_string("results", None, "where to copy tables and figures")
_ONLY = flags.DEFINE_list("only", [], "names of runs, for some of them")


def main(argv: Sequence[str]) -> None:
    """Runs what has not ended, and writes the report."""
    if len(argv) > 1 or _STUDY.value is None:
        raise app.UsageError(f"wanted --study, one of {', '.join(STUDIES)}")
    study = importlib.import_module(f"experiments.studies.{_STUDY.value}")
    chosen = choose(study, _SCALE.value, _ONLY.value)
    default = ROOT / "runs" / f"{_STUDY.value}-{_SCALE.value}"
    folder = Path(_WORKDIR.value).expanduser() if _WORKDIR.value else default
    for place, run in enumerate(chosen, start=1):
        print(f"[{place} of {len(chosen)}] {run.name}", file=sys.stderr)
        launch(run, folder / run.name, _DATA_DIR.value)
    written = page.write([folder / run.name for run in chosen], folder / "report")
    print(f"report: {written}")
    if _RESULTS.value:
        copy(written.parent, Path(_RESULTS.value))


def choose(study: Any, scale: str, only: Sequence[str]) -> list[Run]:
    """Lists the runs asked for.

    Raises:
      UsageError: for an unknown scale or run, naming those there are.
    """
    if scale not in study.SCALES:
        raise app.UsageError(f"--scale: {scale!r}; wanted one of {study.SCALES}")
    runs = study.runs(scale)
    unknown = set(only) - {run.name for run in runs}
    if unknown:
        raise app.UsageError(
            f"--only: {sorted(unknown)}; wanted names of {[run.name for run in runs]}"
        )
    return [run for run in runs if not only or run.name in only]


def launch(run: Run, workdir: Path, data_dir: str) -> None:
    """Runs one command of `train.py`, and ends as it does if it fails."""
    where = {"data.dir": str(Path(data_dir).resolve())} if data_dir else {}
    command = [
        sys.executable,
        str(ROOT / "experiments" / "train.py"),
        f"--config={run.config}",
        *as_flags(run.overrides | where),
        f"--workdir={workdir}",
    ]
    print(shlex.join(command), file=sys.stderr)
    code = subprocess.run(command, check=False).returncode
    if code:
        print(f"{run.name} ended with {code}; the same command goes on there")
        sys.exit(code)


def copy(report: Path, results: Path) -> None:
    """Copies what is worth keeping of a report: tables, and figures as PNG."""
    results.mkdir(parents=True, exist_ok=True)
    for path in sorted(report.iterdir()):
        wanted = path.name.startswith(("methods", "exploration", "densities"))
        if wanted and path.suffix in (".md", ".csv", ".png"):
            shutil.copy(path, results / path.name)


if __name__ == "__main__":
    app.run(main)
