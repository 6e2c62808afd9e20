"""Reruns a study: all its runs, one after the other, and one report on them.

    python experiments/reproduce.py --study=sparse_training --scale=quick
    python experiments/reproduce.py --study=sparse_training --scale=cpu \
        --data_dir=DIR --results=experiments/results/sparse_mnist

Each run is a command of `train.py`, which is printed; the same command again continues
a study that was stopped. Results go to runs/<study>-<scale> or to `--workdir`.
`--results` copies the tables and figures of the report to a directory.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jaxsparse.training import signals  # noqa: E402

if __name__ == "__main__":
    signals.end_when_told(what="the same command continues the study")

from absl import flags  # noqa: E402

from experiments import command_line, studies  # noqa: E402

_STUDY = flags.DEFINE_enum("study", None, studies.NAMES, "study to rerun")
_SCALE = flags.DEFINE_enum("scale", "quick", studies.SCALES, "its size")
_DATA_DIR = command_line.data_dir()
_WORKDIR = command_line.workdir("all runs of the study; default: runs/<study>-<scale>")
_RESULTS = flags.DEFINE_string("results", None, "directory for tables and figures")
_ONLY = flags.DEFINE_list("only", [], "names of runs; default: all")


def main(argv: Sequence[str]) -> int:
    """Runs what has not ended, and writes the report on all that have started."""
    del argv
    try:
        if _STUDY.value is None:
            names = ", ".join(studies.NAMES)
            raise ValueError(f"--study: missing; expected one of {names}")
        if _RESULTS.value and (_ONLY.value or _SCALE.value == "quick"):
            raise ValueError(
                "--results: expected a whole study, got --only or --scale=quick; leave "
                "it out, because a part of a study would replace earlier results"
            )
        default = ROOT / "runs" / f"{_STUDY.value}-{_SCALE.value}"
        folder = command_line.folder_of_runs(_WORKDIR, default)
        results = command_line.path(_RESULTS)
        data_dir = command_line.folder_of_data(_DATA_DIR)
    except ValueError as error:
        command_line.fail(str(error))
    return _run(folder, data_dir, results)


def _run(folder: Path, data_dir: str, results: Path | None) -> int:
    # Imported here, so that errors in a command are reported without waiting for JAX.
    import jax

    from experiments.studies import launcher

    study = importlib.import_module(f"experiments.studies.{_STUDY.value}").STUDY
    try:
        chosen = launcher.choose(study, _SCALE.value, _ONLY.value)
        left = [run for run in chosen if not launcher.has_ended(run, folder / run.name)]
        launcher.check_data(left, data_dir)
    except ValueError as error:
        command_line.fail(str(error))
    failed = launcher.run_all(chosen, folder, data_dir)
    try:
        written = study.finish(folder, _SCALE.value, data_dir)
    except (ValueError, OSError) as error:  # mostly a corrupt state
        command_line.fail(f"{error}; no report was written")
    except jax.errors.JaxRuntimeError as error:  # mostly too little memory
        command_line.fail(f"{str(error).splitlines()[0]}; no report was written")
    print(f"report: {written}")
    if failed:
        print(f"failed: {', '.join(failed)}; the same command tries them again")
        return 1
    if results:
        launcher.copy(written.parent, results, study.results)
    return 0


if __name__ == "__main__":
    command_line.run(main)
