"""Measures the speed of jaxsparse on this machine, and prints tables.

    python experiments/benchmark.py
    python experiments/benchmark.py --only=mnist,selection --seconds=5
    python experiments/benchmark.py --data_dir=DIR --save

Speeds are compared as ratios within one run, because machines differ and slow down. The
rows of PyTorch need `pip install -e '.[benchmark]'`. `--save` writes the tables, with
the machine and the versions, to experiments/results/.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the benchmarks are found

from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

from experiments import command_line  # noqa: E402
from jaxsparse import config  # noqa: E402

# Each is a module of experiments/benchmarks/ with a function `measure`.
BENCHMARKS = {
    "mnist": "training LeNet-300-100 on MNIST; PyTorch with and without DataLoader",
    "conv": "training LeNet-5 and ResNet-20, by gradients of convolutions; PyTorch",
    "selection": "exact selection from 11 million weights; top_k, NumPy's partition",
    "mask_updates": "a mask update of each method, alone and in one of 100 steps",
    "overhead": "transforms.fixed around an optimizer; the bare optimizer",
    "pipeline": "training from the device, from the host and from a DataLoader",
    "startup": "from the command to the first step, with and without cached programs",
    "scaling": "FLOPs and communication on 1 to 8 devices; times on real devices",
    "other_libraries": "pruning and sparse training; jaxpruner, torch.nn.utils.prune",
    "throughput": "training ResNets by dtype and batch size; only on accelerators",
}

_ONLY = flags.DEFINE_list(
    "only",
    [],
    "benchmarks to run, separated by commas; default: all of\n"
    + "\n".join(f"{name}: {what}" for name, what in BENCHMARKS.items()),
)
_DATA_DIR = command_line.data_dir()
_SECONDS = flags.DEFINE_float(
    "seconds", 3.0, "seconds for each row, over its repetitions", lower_bound=0
)
_SAVE = flags.DEFINE_bool("save", False, "also write to experiments/results/")


def main(argv: Sequence[str]) -> None:
    """Runs the benchmarks, and prints the tables of each when it is done."""
    del argv
    for name in _ONLY.value:
        if name not in BENCHMARKS:
            near = config.nearest(name, list(BENCHMARKS))
            command_line.fail(f"--only: unknown {name!r}; did you mean {near}?")
    try:
        data_dir = command_line.folder_of_data(_DATA_DIR) or None
    except ValueError as error:
        command_line.fail(str(error))
    absl_logging.set_verbosity(absl_logging.WARNING)
    # Imported here, so that errors in a command are found before JAX is imported.
    from experiments.benchmarks import environment, timing

    before = environment.describe(sys.argv)
    print(environment.markdown(before))
    tables = []
    for name in _ONLY.value or BENCHMARKS:
        options = {"data_dir": data_dir} if name == "mnist" else {}
        module = importlib.import_module(f"experiments.benchmarks.{name}")
        for table in module.measure(seconds=_SECONDS.value, **options):
            print(timing.markdown(table), flush=True)
            tables.append(table)
    after = before | {"load_at_end": environment.load()}
    print(f"Load average at the end: {after['load_at_end']}")
    if _SAVE.value:
        folder = ROOT / "experiments" / "results"
        path = environment.save(folder, after, tables, suffix="-".join(_ONLY.value))
        print(f"written: {path.relative_to(ROOT)} and .json", file=sys.stderr)


if __name__ == "__main__":
    command_line.run(main)
