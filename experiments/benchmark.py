"""Measures the speed of jaxsparse on this machine, and prints tables.

    python experiments/benchmark.py
    python experiments/benchmark.py --only=mnist,selection --seconds=5
    python experiments/benchmark.py --data_dir=DIR --save
    python experiments/benchmark.py --against=THEN.json --page=NOW.json

Speeds are compared as ratios within one run, because machines differ and slow down. The
rows of PyTorch need `pip install -e '.[benchmark]'`. `--save` writes the tables, with
the machine and the versions, to experiments/results/. `--against` compares the tables
with those of a saved page, row by row.
"""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the benchmarks are found

from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

from experiments import command_line  # noqa: E402
from experiments.benchmarks import aims, saved_page  # noqa: E402
from jaxsparse import config  # noqa: E402

# Each is a module of experiments/benchmarks/ with a function `measure`.
BENCHMARKS = {
    "mnist": "training LeNet-300-100 on MNIST; PyTorch with and without DataLoader",
    "conv": "training LeNet-5 and ResNet-20, by gradients of convolutions; PyTorch",
    "single_layers": "convolutions, and BatchNorm with ReLU, with gradients; PyTorch",
    "small_resnet": "training ResNet-8 on small images; one replicate and five",
    "five_seeds": "training five seeds on CPU cores: threads, programs, processes",
    "selection": "exact selection from 11 million weights; top_k, NumPy's partition",
    "passes": "the same as a multiple of one pass over the scores",
    "mask_updates": "a mask update of each method, alone and in one of 100 steps",
    "state_size": "bytes that sparse optimizers add to the optimizer state",
    "pipeline": "training from the device, from the host and from a DataLoader",
    "reading": "reading MNIST and CIFAR-10, with and without cached images",
    "startup": "from the command to the first step, with and without cached programs",
    "lth_digits": "the whole run of configs/lth_digits.py, and its training alone",
    "scaling": "FLOPs and communication on 1 to 8 devices; times on real devices",
    "other_libraries": "pruning and sparse training; jaxpruner, torch.nn.utils.prune",
    "throughput": "training ResNets by dtype, batch and replicates; only accelerators",
    "short_imp": "a short lottery-ticket run on CIFAR-10, whole; only accelerators",
    "reproduction": "reproduce.py --scale=quick of each study; only by name",
}
LONG = ("reproduction",)  # which take many minutes, and are run only by name

_ONLY = flags.DEFINE_list(
    "only",
    [],
    f"benchmarks to run, separated by commas; default: all but {', '.join(LONG)} of\n"
    + "\n".join(f"{name}: {what}" for name, what in BENCHMARKS.items()),
)
_DATA_DIR = command_line.data_dir()
_SECONDS = flags.DEFINE_float(
    "seconds", 3.0, "seconds for each row, over its repetitions", lower_bound=0
)
_SAVE = flags.DEFINE_bool("save", False, "also write to experiments/results/")
_AGAINST = flags.DEFINE_string(
    "against", None, "saved page, as benchmark-cpu.json, to compare with row by row"
)
_PAGE = flags.DEFINE_string(
    "page", None, "saved page to compare with that of --against, instead of measuring"
)


def main(argv: Sequence[str]) -> None:
    """Runs the benchmarks, and prints the tables of each when it is done.

    Args:
      argv: the command line, of which absl has parsed the flags.
    """
    del argv
    for name in _ONLY.value:
        if name not in BENCHMARKS:
            near = config.nearest(name, list(BENCHMARKS))
            command_line.fail(f"--only: unknown {name!r}; did you mean {near}?")
    if _PAGE.value and not _AGAINST.value:
        command_line.fail("--against: missing; give the page to compare --page with")
    then, now = read_page(_AGAINST), read_page(_PAGE)
    if then and now:
        print(saved_page.compare(then, now, rising=aims.rising()))
        return
    try:
        data_dir = command_line.folder_of_data(_DATA_DIR) or None
    except ValueError as error:
        command_line.fail(str(error))
    absl_logging.set_verbosity(absl_logging.WARNING)
    content = measure(data_dir)
    if then:
        print(saved_page.compare(then, content, rising=aims.rising()))


def read_page(flag: flags.FlagHolder[str | None]) -> dict[str, Any] | None:
    """Reads the saved page that a flag names; None without the flag.

    Args:
      flag: the flag, with the path of a JSON file.
    """
    path = command_line.path(flag)
    try:
        return path and saved_page.read(path)
    except ValueError as error:
        command_line.fail(f"--{flag.name}: {error}")


def measure(data_dir: str | None) -> dict[str, Any]:
    """Runs the benchmarks, prints their tables, and saves them if `--save` is given.

    Args:
      data_dir: folder of prepared datasets; None if it is not given.

    Returns:
      The content of the page: the machine, the versions and the data of the tables.
    """
    # Imported here, so that errors in a command are found before JAX is imported.
    from experiments.benchmarks import environment, timing

    before = environment.describe(sys.argv)
    print(environment.markdown(before))
    names = _ONLY.value or [name for name in BENCHMARKS if name not in LONG]
    tables = []
    for name in names:
        module = importlib.import_module(f"experiments.benchmarks.{name}")
        takes_data = "data_dir" in module.measure.__kwdefaults__
        options = {"data_dir": data_dir} if takes_data else {}
        for table in module.measure(seconds=_SECONDS.value, **options):
            print(timing.markdown(table), flush=True)
            tables.append(table)
    skipped = () if _ONLY.value else LONG
    summary = aims.summarize({t.title: t.data for t in tables}, names, skipped=skipped)
    if summary.rows:
        print(timing.markdown(summary))
        tables.insert(0, summary)
    after = before | {"load_at_end": environment.load()}
    print(f"Load average at the end: {after['load_at_end']}")
    page = environment.content(after, tables)
    if _SAVE.value:
        folder = ROOT / "experiments" / "results"
        suffix = "-".join(_ONLY.value)
        path = environment.save(folder, after, tables, suffix=suffix)
        print(f"written: {path.relative_to(ROOT)} and .json", file=sys.stderr)
    return page


if __name__ == "__main__":
    command_line.run(main)
