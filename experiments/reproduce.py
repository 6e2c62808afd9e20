"""Reruns a study: all its runs, one after the other, and one report over them.

    python experiments/reproduce.py --study=sparse_training --scale=quick
    python experiments/reproduce.py --study=sparse_training --scale=cpu \
        --data_dir=DIR --results=experiments/results/sparse_mnist

Each run is a command of `train.py`, which is shown; the same command again goes on
where the study was stopped. Results go to runs/<study>-<scale> unless `--workdir` says
otherwise. `--results` copies the tables and figures of the report to a folder.
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

_STUDY = flags.DEFINE_enum("study", None, studies.NAMES, "what to rerun")
_SCALE = flags.DEFINE_enum("scale", "quick", studies.SCALES, "how much of it")
_DATA_DIR = command_line.data_dir()
_WORKDIR = command_line.workdir("all runs of the study; default: runs/<study>-<scale>")
_RESULTS = flags.DEFINE_string("results", None, "where to copy tables and figures")
_ONLY = flags.DEFINE_list("only", [], "names of runs, for some of them")


def main(argv: Sequence[str]) -> int:
    """Runs what has not ended, and writes the report on all that have begun."""
    del argv
    try:
        if _STUDY.value is None:
            names = ", ".join(studies.NAMES)
            raise ValueError(f"--study: missing; expected one of {names}")
        if _RESULTS.value and (_ONLY.value or _SCALE.value == "quick"):
            raise ValueError(
                "--results: given with --only or --scale=quick; expected a whole "
                "study, as what is there would be replaced by a part of it"
            )
        default = ROOT / "runs" / f"{_STUDY.value}-{_SCALE.value}"
        folder = command_line.folder_of_runs(_WORKDIR, default)
        results = command_line.path(_RESULTS)
        data_dir = command_line.folder_of_data(_DATA_DIR)
    except ValueError as error:
        command_line.fail(str(error))
    return _run(folder, data_dir, results)


def _run(folder: Path, data_dir: str, results: Path | None) -> int:
    # Here and not above, so that what is wrong with a command is said without JAX.
    import jax

    from experiments.studies import launcher

    study = importlib.import_module(f"experiments.studies.{_STUDY.value}")
    try:
        chosen = launcher.choose(study, _SCALE.value, _ONLY.value)
        left = [run for run in chosen if not launcher.has_ended(run, folder / run.name)]
        launcher.check_data(left, data_dir)
    except ValueError as error:
        command_line.fail(str(error))
    failed = launcher.run_all(chosen, folder, data_dir)
    try:
        written = study.finish(folder, _SCALE.value, data_dir)
    except (ValueError, OSError) as error:  # above all, a state that is corrupt
        command_line.fail(f"{error}; no report was written")
    except jax.errors.JaxRuntimeError as error:  # above all, no memory left
        command_line.fail(f"{str(error).splitlines()[0]}; no report was written")
    print(f"report: {written}")
    if failed:
        print(f"failed: {', '.join(failed)}; the same command tries them again")
        return 1
    if results:
        launcher.copy(written.parent, results, study.RESULTS)
    return 0


if __name__ == "__main__":
    command_line.run(main)
