"""Counts the FLOPs of ResNet-50 by method, and compares them with published ones.

    python experiments/flops.py

Counts are made from the traced program, without data, training or an accelerator. The
page goes to OUT: multiples of dense for static masks, SET, RigL, SNFS, GMP and Top-KAST
at 80 and 90 % sparsity, beside those of Evci et al. 2020, and why they differ.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

from experiments import command_line  # noqa: E402

_OUT = flags.DEFINE_string(
    "out", None, "page to write; default: experiments/results/flops-resnet50.md"
)


def main(argv: Sequence[str]) -> None:
    """Counts, and writes the page.

    Args:
      argv: the command line, of which absl has parsed the flags.
    """
    del argv
    absl_logging.set_verbosity(absl_logging.WARNING)
    usual = ROOT / "experiments" / "results" / "flops-resnet50.md"
    out = command_line.path(_OUT) or usual
    # Imported here, so that errors in a command are found before JAX is imported.
    from experiments.benchmarks import flops_page, resnet50_flops
    from jaxsparse import metrics_log

    results = resnet50_flops.count(resnet50_flops.resnet())
    metrics_log.write_atomically(out, flops_page.page(results))
    print(f"page: {out}")


if __name__ == "__main__":
    command_line.run(main)
