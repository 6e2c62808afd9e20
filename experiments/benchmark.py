"""Measures how fast jaxsparse is here, and prints tables.

    python experiments/benchmark.py
    python experiments/benchmark.py --only=mnist,select --seconds=5
    python experiments/benchmark.py --data_dir=FOLDER --save

Sections: mnist and convolutions (with PyTorch, if `pip install -e '.[benchmark]'` was
run), select, updates, overhead, dispatch, replicates, devices; scaling (over real
devices, or what compiled programs say of forced ones, and what they send), pipeline
(input), startup (from command to first step), peers (where they are installed), and
accelerator (ResNets, RigL, 100 million weights and a lottery run; not on CPUs).
`--save` writes the tables, with what they were measured on, to experiments/results/.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the benchmark's parts are found

from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

from experiments import command_line  # noqa: E402
from jaxsparse import config  # noqa: E402

# Module of `benchmarks` and function in it, imported when it is run.
SECTIONS = {
    "mnist": ("mnist", "measure"),
    "select": ("selection", "measure"),
    "updates": ("updates", "measure"),
    "overhead": ("programs", "overhead"),
    "dispatch": ("programs", "dispatch"),
    "convolutions": ("convolving", "measure"),
    "replicates": ("programs", "replicates"),
    "devices": ("programs", "devices"),
    "scaling": ("scaling", "measure"),
    "pipeline": ("pipeline", "measure"),
    "startup": ("startup", "measure"),
    "peers": ("peers", "measure"),
    "accelerator": ("accelerator", "measure"),
}

_ONLY = flags.DEFINE_list("only", [], "sections to run; all if left out")
_DATA_DIR = command_line.data_dir()
_SECONDS = flags.DEFINE_float(
    "seconds", 3.0, "time for each row, over its repetitions", lower_bound=0
)
_SAVE = flags.DEFINE_bool("save", False, "also write to experiments/results/")


def main(argv: Sequence[str]) -> None:
    """Runs the sections, printing each when it is done."""
    del argv
    for name in _ONLY.value:
        if name not in SECTIONS:
            near = config.nearest(name, list(SECTIONS))
            command_line.fail(f"--only: unknown {name!r}; did you mean {near}?")
    try:
        data_dir = command_line.folder_of_data(_DATA_DIR) or None
    except ValueError as error:
        command_line.fail(str(error))
    absl_logging.set_verbosity(absl_logging.WARNING)
    # Here and not above, so that what is wrong with a command is said without JAX.
    from experiments.benchmarks import environment, timing

    before = environment.describe(sys.argv)
    print(environment.markdown(before))
    tables = []
    for name in _ONLY.value or SECTIONS:
        more = {"data_dir": data_dir} if name == "mnist" else {}
        for table in section(name)(seconds=_SECONDS.value, **more):
            print(timing.markdown(table), flush=True)
            tables.append(table)
    after = before | {"load_at_end": environment.load()}
    print(f"Load average at the end: {after['load_at_end']}")
    if _SAVE.value:
        folder = ROOT / "experiments" / "results"
        path = environment.save(folder, after, tables, suffix="-".join(_ONLY.value))
        print(f"written: {path.relative_to(ROOT)} and .json", file=sys.stderr)


def section(name: str) -> Callable[..., Any]:
    """Returns the function that measures a section and lists its tables."""
    module, function = SECTIONS[name]
    return getattr(
        importlib.import_module(f"experiments.benchmarks.{module}"), function
    )


if __name__ == "__main__":
    command_line.run(main)
