"""Runs a grid: recipes × values of fields × seeds, with one report over all of it.

    python experiments/sweep.py --config=configs/set_mnist.py --seeds=5 \
        --config=configs/rigl_mnist.py --vary=sparse.sparsity=0.9,0.95,0.98 --jobs=2

Every combination is one run of `train.py`, which trains all its seeds at once, laid
over the devices there are, or `--at_once` so many. The runs go to submitit: local
processes, `--jobs` at a time, or `--engine=slurm`, where `--option` names what a job
needs. The same command again goes on where the sweep was stopped.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from absl import app, flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

from experiments.studies import launching  # noqa: E402
from experiments.sweeping import engines, grid  # noqa: E402

_CONFIG = flags.DEFINE_multi_string("config", [], "recipe, FILE or FILE:VARIANT")
_VARY = flags.DEFINE_multi_string("vary", [], "FIELD=VALUE,VALUE of the config")
_SET = flags.DEFINE_multi_string("set", [], "FIELD=VALUE, of all runs")
_SEEDS = flags.DEFINE_integer("seeds", 3, "of every point", lower_bound=1)
_AT_ONCE = flags.DEFINE_integer("at_once", 0, "seeds in one run; 0 for all")
_JOBS = flags.DEFINE_integer("jobs", 1, "how many run at once", lower_bound=1)
_ENGINE = flags.DEFINE_enum("engine", "local", engines.ENGINES, "who runs them")
_OPTION = flags.DEFINE_multi_string("option", [], "NAME=VALUE of submitit's executor")
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the sweep's runs")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder of prepared TFDS datasets")


def main(argv: Sequence[str]) -> int:
    """Runs what has not ended, and writes the report on all that have begun."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    if len(argv) > 1 or not _WORKDIR.value:
        raise app.UsageError("wanted --workdir, --config and no bare words")
    folder = Path(_WORKDIR.value).expanduser().resolve()
    try:
        points = grid.make(
            *(_CONFIG.value, _VARY.value, _SET.value),
            seeds=_SEEDS.value,
            at_once=_AT_ONCE.value,
        )
        options = dict(map(_option, _OPTION.value))
    except (ValueError, AttributeError, ImportError) as error:
        raise app.UsageError(str(error)) from error
    runs = [run for point in points for run in point.runs]
    left = [run for run in runs if not launching.has_ended(run, folder / run.name)]
    print(f"{len(left)} of {len(runs)} runs are to be done", file=sys.stderr)
    try:
        codes = engines.run_all(
            [
                (folder / run.name, launching.command(run, folder, _DATA_DIR.value))
                for run in left
            ],
            engine=_ENGINE.value,
            jobs=_JOBS.value,
            logs=folder / "jobs",
            options=options,
        )
    except KeyboardInterrupt:
        print("interrupted; the same command continues the sweep", file=sys.stderr)
        return 130
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    failed = [name for name, code in codes.items() if code]
    if failed:
        print(f"not ended: {', '.join(failed)}; the same command goes on with them")
    try:
        print(f"report: {grid.report(points, folder)}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return int(bool(failed))


def _option(words: str) -> tuple[str, str | int]:
    name, equals, value = words.partition("=")
    if not equals:
        raise ValueError(f"--option: came {words!r}; wanted NAME=VALUE")
    return name, int(value) if value.isdecimal() else value


if __name__ == "__main__":
    app.run(main)
