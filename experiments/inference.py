"""Measures how fast finished sparse networks predict on this CPU, by method.

    python experiments/inference.py
    python experiments/inference.py --network=LeNet-300-100 --batches=1,32 --minutes=4

Networks have random weights and random masks. Each network, sparsity and batch size is
a group, whose methods are timed in turns: dense JAX, `predict.auto`, single forms of
`predict.fixed`, PyTorch (extra `torch`) and ONNX Runtime (extra `export`). All of them
run on one core. Each group is appended to OUT.csv with the machine and the versions,
the page OUT.md is written from this file, and a later call measures only the groups
that are missing.
"""

import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

from experiments import command_line  # noqa: E402

NAMES = ("LeNet-300-100", "ResNet-20", "ViT")

_NETWORKS = flags.DEFINE_multi_enum(
    "network", list(NAMES), NAMES, "networks; repeat the flag for several"
)
_SPARSITIES = flags.DEFINE_list(
    "sparsities", ["0.9", "0.95", "0.98", "0.99"], "fractions of zeros, in [0, 1)"
)
_BATCHES = flags.DEFINE_list("batches", ["1", "32", "256"], "numbers of images")
_SECONDS = flags.DEFINE_float(
    "seconds", 0.2, "seconds for each method, over its turns", lower_bound=1e-3
)
_MINUTES = flags.DEFINE_float(
    "minutes", None, "start no group after so many minutes; default: no limit"
)
_PAGE_ONLY = flags.DEFINE_bool(
    "page_only",
    False,
    "measure nothing; write the page from OUT.csv",
    **command_line.SHARED,
)
_OUT = flags.DEFINE_string(
    "out", None, "files without ending; default: experiments/results/inference-cpu"
)


def main(argv: Sequence[str]) -> None:
    """Measures the missing groups, and writes the page.

    Args:
      argv: the command line, of which absl has parsed the flags.
    """
    del argv
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        sparsities, batches = _numbers()
    except ValueError as error:
        command_line.fail(str(error))
    usual = ROOT / "experiments" / "results" / "inference-cpu"
    out = command_line.path(_OUT) or usual
    if _PAGE_ONLY.value and not out.with_suffix(".csv").exists():
        command_line.fail(f"--page_only: no file {out}.csv; call without this flag")
    start = time.monotonic()
    # Imported here, so that errors in a command are found before JAX is imported.
    from experiments.benchmarks import inference, inference_page, row_origins

    rows = inference_page.read(out.with_suffix(".csv"))
    row_origins.use_one_core()
    inference.keep_memory()
    done = {(row["network"], row["sparsity"], row["batch"]) for row in rows}
    for group in itertools.product(_NETWORKS.value, sparsities, batches):
        late = _MINUTES.value and time.monotonic() - start > 60 * _MINUTES.value
        if _PAGE_ONLY.value or late or group in done:
            continue
        rows += inference.measure(*group, seconds=_SECONDS.value)
        inference_page.write(out, rows)
        print(*group, f"{time.monotonic() - start:.0f} s", flush=True)
    inference_page.write(out, rows)
    print(f"page: {out}.md")


def _numbers() -> tuple[list[float], list[int]]:
    """Reads the sparsities and the batch sizes."""
    sparsities = command_line.numbers(
        _SPARSITIES, float, lambda each: 0 <= each < 1, "numbers in [0, 1)"
    )
    batches = command_line.numbers(
        _BATCHES, int, lambda each: each >= 1, "whole numbers of 1 or more"
    )
    return sparsities, batches


if __name__ == "__main__":
    command_line.run(main)
