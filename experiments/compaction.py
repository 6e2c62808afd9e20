"""Measures what compaction removes from trained networks, and how fast they get.

    python experiments/compaction.py --data_dir=DIR

Trains networks by short runs of one seed each, removes the neurons and channels
that contribute nothing, exports the smaller networks to ONNX (compared with ONNX
Runtime) and safetensors, and times both networks on one core. The table goes to
OUT.csv, with the machine and the versions, and the page to OUT.md. A later call trains
only what is missing, and measures all networks again. To train on all cores, call with
`--train_only` first.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

from experiments import command_line  # noqa: E402
from jaxsparse import extras  # noqa: E402

_DATA_DIR = command_line.data_dir()
_WORKDIR = command_line.workdir("the runs; default: runs/compaction")
_SECONDS = flags.DEFINE_float(
    "seconds", 1.0, "seconds for each network, over its turns", lower_bound=1e-3
)
_TRAIN_ONLY = flags.DEFINE_bool("train_only", False, "train, and measure nothing")
_PAGE_ONLY = flags.DEFINE_bool(
    "page_only",
    False,
    "measure nothing; write the page from OUT.csv",
    **command_line.SHARED,
)
_OUT = flags.DEFINE_string(
    "out", None, "files without ending; default: experiments/results/compaction-cpu"
)


def main(argv: Sequence[str]) -> None:
    """Trains, measures, and writes the page.

    Args:
      argv: the command line, of which absl has parsed the flags.
    """
    del argv
    absl_logging.set_verbosity(absl_logging.WARNING)
    out = command_line.path(_OUT) or ROOT / "experiments" / "results" / "compaction-cpu"
    if not _PAGE_ONLY.value:
        _measure(out)
    if _TRAIN_ONLY.value:
        return
    if not out.with_suffix(".csv").exists():
        command_line.fail(f"--page_only: no file {out}.csv; call without this flag")
    from experiments.benchmarks import compaction_page

    compaction_page.write_page(out)
    print(f"page: {out}.md")


def _measure(out: Path) -> None:
    """Trains what is missing, measures all networks, and writes the CSV file."""
    try:
        data_dir = command_line.folder_of_data(_DATA_DIR)
        extras.require(
            *("onnx", "onnxruntime", "safetensors"), purpose="exports", extra="export"
        )
    except (ValueError, ModuleNotFoundError) as error:
        command_line.fail(str(error))
    # Imported here, so that errors in a command are found before JAX is imported.
    from experiments.benchmarks import (
        compacted_networks,
        compaction_page,
        inference,
        row_origins,
    )

    workdir = command_line.path(_WORKDIR) or ROOT / "runs" / "compaction"
    networks = compacted_networks.NETWORKS
    if not _TRAIN_ONLY.value:
        row_origins.use_one_core()  # before XLA starts its threads
    runs = {n: compacted_networks.train(n, workdir, data_dir) for n in networks}
    if _TRAIN_ONLY.value:
        return
    inference.keep_memory()
    rows = []
    for name, run in runs.items():
        rows.append(compacted_networks.measure(name, run, seconds=_SECONDS.value))
        print(rows[-1], flush=True)
    compaction_page.write_rows(out, rows)


if __name__ == "__main__":
    command_line.run(main)
