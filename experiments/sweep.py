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

from jaxsparse.training import signals  # noqa: E402

if __name__ == "__main__":
    signals.end_when_told(what="the same command continues the sweep")

from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

from experiments import command_line, sweeping  # noqa: E402
from experiments.sweeping import points as grid_points  # noqa: E402

_CONFIG = flags.DEFINE_multi_string("config", [], "recipe, FILE or FILE:VARIANT")
_VARY = flags.DEFINE_multi_string("vary", [], "FIELD=VALUE,VALUE of the config")
_SET = flags.DEFINE_multi_string("set", [], "FIELD=VALUE, of all runs")
_SEEDS = command_line.seeds(3)
_AT_ONCE = flags.DEFINE_integer(
    "at_once", 0, "seeds in one run; 0 for all", lower_bound=0
)
_DENSE = flags.DEFINE_bool(
    "dense", False, "train the recipes without sparsity too, as the reference"
)
_JOBS = flags.DEFINE_integer("jobs", 1, "how many run at once", lower_bound=1)
_ENGINE = flags.DEFINE_enum("engine", "local", sweeping.ENGINES, "who runs them")
_OPTION = flags.DEFINE_multi_string("option", [], "NAME=VALUE of submitit's executor")
_WORKDIR = command_line.workdir("all runs of the sweep, and its report")
_DATA_DIR = command_line.data_dir()


def main(argv: Sequence[str]) -> int:
    """Runs what has not ended, and writes the report on all that have begun."""
    del argv
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        folder = command_line.folder_of_runs(_WORKDIR, None)
        data_dir = command_line.folder_of_data(_DATA_DIR)
        points = grid_points.make(
            *(_CONFIG.value, _VARY.value, _SET.value),
            seeds=_SEEDS.value,
            at_once=_AT_ONCE.value,
            dense=_DENSE.value,
        )
        grid_points.check_data(points, data_dir)
        options = dict(map(_option, _OPTION.value))
    except (ValueError, AttributeError, ImportError) as error:
        command_line.fail(str(error))
    return _run(points, folder, data_dir, options)


def _run(
    points: list[grid_points.Point],
    folder: Path,
    data_dir: str,
    options: dict[str, str | int],
) -> int:
    # Here and not above, so that what is wrong with a command is said without JAX.
    from experiments.studies import launcher
    from experiments.sweeping import executors, grid

    runs = [run for point in points for run in point.runs]
    try:
        grid.check(points)
        left = [run for run in runs if not launcher.has_ended(run, folder / run.name)]
        launcher.check_data(left, data_dir)
        print(f"{len(left)} of {len(runs)} runs are to be done", file=sys.stderr)
        codes = executors.run_all(
            [
                (folder / run.name, launcher.command(run, folder, data_dir))
                for run in left
            ],
            engine=_ENGINE.value,
            jobs=_JOBS.value,
            logs=folder / "jobs",
            options=options,
        )
        failed = [name for name, code in codes.items() if code]
        if failed:
            print(f"not ended: {', '.join(failed)}; the same command goes on with them")
        print(f"report: {grid.report(points, folder)}")
    except (ValueError, OSError) as error:
        command_line.fail(str(error))
    return int(bool(failed))


def _option(words: str) -> tuple[str, str | int]:
    name, equals, value = words.partition("=")
    if not equals:
        raise ValueError(f"--option: came {words!r}; wanted NAME=VALUE")
    return name, int(value) if value.isdecimal() else value


if __name__ == "__main__":
    command_line.run(main)
