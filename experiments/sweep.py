"""Runs a grid of recipes × values of config fields × seeds, and reports on all of it.

    python experiments/sweep.py --config=configs/set_mnist.py --seeds=5 \
        --config=configs/rigl_mnist.py --vary=sparse.sparsity=0.9,0.95,0.98 --jobs=2 \
        --workdir=runs/sweep

Every combination is one run of `train.py`, which trains all its seeds at once, or
`--seeds_per_run` of them. submitit runs them: in `--jobs` local processes, or on Slurm
with `--executor=slurm`, where `--option` sets what a job needs. The same command again
continues a sweep that was stopped.
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
from ml_collections import ConfigDict  # noqa: E402

from experiments import command_line, sweeping  # noqa: E402
from experiments.sweeping import points as grid_points  # noqa: E402

_CONFIG = flags.DEFINE_multi_string("config", [], "recipe, as FILE or FILE:PRESET")
_VARY = flags.DEFINE_multi_string("vary", [], "FIELD=VALUE,VALUE of the config")
_SET = flags.DEFINE_multi_string("set", [], "FIELD=VALUE of the config, in all runs")
_SEEDS = command_line.seeds(3)
_SEEDS_PER_RUN = flags.DEFINE_integer(
    "seeds_per_run", 0, "seeds that one run trains; 0 for all", lower_bound=0
)
_DENSE = flags.DEFINE_bool(
    "dense", False, "also train the recipes without sparsity, as the reference"
)
_JOBS = flags.DEFINE_integer("jobs", 1, "runs that run at once", lower_bound=1)
_EXECUTOR = flags.DEFINE_enum(
    "executor", "local", sweeping.EXECUTORS, "local processes, or jobs of Slurm"
)
_OPTION = flags.DEFINE_multi_string(
    "option", [], "NAME=VALUE of submitit's update_parameters, as gpus_per_node=1"
)
_WORKDIR = command_line.workdir("all runs of the sweep, and its report")
_DATA_DIR = command_line.data_dir()


def main(argv: Sequence[str]) -> int:
    """Runs all runs that have not ended, and reports on those that have started.

    Args:
      argv: the command line, of which absl has parsed the flags.
    """
    del argv
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        folder = command_line.folder_of_runs(_WORKDIR, None)
        data_dir = command_line.folder_of_data(_DATA_DIR)
        points = grid_points.make(
            *(_CONFIG.value, _VARY.value, _SET.value),
            seeds=_SEEDS.value,
            seeds_per_run=_SEEDS_PER_RUN.value,
            dense=_DENSE.value,
        )
        grid_points.check_data(points, data_dir)
        options = dict(map(_parse_option, _OPTION.value))
    except (ValueError, AttributeError, ImportError) as error:
        command_line.fail(str(error))
    return _run(points, folder, data_dir, options)


def _run(
    points: list[grid_points.Point],
    folder: Path,
    data_dir: str,
    options: dict[str, str | int],
) -> int:
    # Imported here, so that errors in a command are found before JAX is imported.
    from experiments.studies import driver, run_reader
    from experiments.studies.runs import command, read
    from experiments.sweeping import executors, report

    runs = [run for point in points for run in point.runs]
    try:
        for run in runs:
            _check_names(run.name, read(run))
        left = [run for run in runs if not run_reader.has_ended(run, folder / run.name)]
        driver.check_data(left, data_dir)
        print(f"{len(left)} of {len(runs)} runs are left", file=sys.stderr)
        codes = executors.run_all(
            [(folder / run.name, command(run, folder, data_dir)) for run in left],
            executor=_EXECUTOR.value,
            jobs=_JOBS.value,
            logs=folder / "jobs",
            options=options,
        )
        failed = [name for name, code in codes.items() if code]
        if failed:
            print(f"not ended: {', '.join(failed)}; the same command continues them")
        print(f"report: {report.write(points, folder)}")
    except (ValueError, OSError) as error:
        command_line.fail(str(error))
    return int(bool(failed))


def _check_names(run: str, c: ConfigDict) -> None:
    """Checks the names in a config that only modules with JAX know."""
    from jaxsparse import factory

    try:
        factory.check_names(c)
    except ValueError as error:
        raise ValueError(f"{run}: {error}") from error


def _parse_option(text: str) -> tuple[str, str | int]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--option: expected NAME=VALUE, got {text!r}")
    return name, int(value) if value.isdecimal() else value


if __name__ == "__main__":
    command_line.run(main)
