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

import jax  # noqa: E402
from absl import app, flags  # noqa: E402

from experiments import studies  # noqa: E402
from experiments.studies import launching  # noqa: E402

_STUDY = flags.DEFINE_enum("study", None, studies.NAMES, "what to rerun")
_SCALE = flags.DEFINE_string("scale", "quick", "how much of it; each study has its own")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder of prepared TFDS datasets")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the study's runs")
_RESULTS = flags.DEFINE_string("results", None, "where to copy tables and figures")
_ONLY = flags.DEFINE_list("only", [], "names of runs, for some of them")


def main(argv: Sequence[str]) -> int:
    """Runs what has not ended, and writes the report on all that have begun."""
    if len(argv) > 1 or _STUDY.value is None:
        raise app.UsageError(f"wanted --study, one of {', '.join(studies.NAMES)}")
    if _RESULTS.value and (_ONLY.value or _SCALE.value == "quick"):
        raise app.UsageError(
            "--results: given with --only or --scale=quick; wanted a whole study, as "
            "what is there would be replaced by a part of it"
        )
    study = importlib.import_module(f"experiments.studies.{_STUDY.value}")
    try:
        chosen = launching.choose(study, _SCALE.value, _ONLY.value)
    except ValueError as error:
        raise app.UsageError(str(error)) from error
    default = ROOT / "runs" / f"{_STUDY.value}-{_SCALE.value}"
    folder = Path(_WORKDIR.value).expanduser() if _WORKDIR.value else default
    failed = launching.run_all(chosen, folder, _DATA_DIR.value)
    try:
        written = study.finish(folder, _SCALE.value, _DATA_DIR.value)
    except KeyboardInterrupt:
        print("interrupted; the same command continues the study", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:  # above all, a state that is corrupt
        print(f"error: {error}; no report was written", file=sys.stderr)
        return 1
    except jax.errors.JaxRuntimeError as error:  # above all, no memory left
        line = str(error).splitlines()[0]
        print(f"error: {line}; no report was written", file=sys.stderr)
        return 1
    print(f"report: {written}")
    if failed:
        print(f"failed: {', '.join(failed)}; the same command tries them again")
        return 1
    if _RESULTS.value:
        launching.copy(written.parent, Path(_RESULTS.value), study.RESULTS)
    return 0


if __name__ == "__main__":
    app.run(main)
