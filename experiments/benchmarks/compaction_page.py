"""The page of what compaction removes from trained networks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import environment, timing
from experiments.benchmarks.compacted_networks import BATCHES
from experiments.benchmarks.timing import Table
from jaxsparse import metrics_log

Row = dict[str, Any]
INTRODUCTION = """
Each network was trained by one short run (n = 1), far below published lengths, so that
accuracies mean little and are left out. Pruned weights count as parameters. Outputs of
both networks are compared on random images of several batch sizes; the largest
difference of a logit is in the table. Each smaller network was exported to ONNX, where
ONNX Runtime computed the same logits, and to a packed safetensors file, which was read
again. Times are of the forward pass compiled by XLA with dense weights, of both
networks in turns: median and range over 5 turns. A ratio above 1 means that the smaller
network is faster. Where multiply-adds fall and times do not, XLA takes as long for
convolutions with fewer of channels that were already few.
""".strip()


def write(out: Path, rows: Sequence[Row], argv: Sequence[str]) -> None:
    """Writes the CSV file and the page.

    Args:
      out: path of both files without their endings.
      rows: one row for each network.
      argv: the command line.
    """
    facts = environment.describe(argv)
    machine = (
        "`python experiments/compaction.py --data_dir=DIR`, with most other jobs "
        f"stopped, on one core of {facts['processor'].partition(',')[0]}; Python "
        f"{facts['python']}, jax {facts['versions']['jax']}."
    )
    parts = ["# Compaction of trained networks on a CPU", machine, INTRODUCTION]
    text = "\n\n".join([*parts, _reading(rows), _sizes(rows), _times(rows)]) + "\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    metrics_log.write_atomically(out.with_suffix(".md"), text)
    lines = [",".join(rows[0])]
    lines += [",".join(f'"{value}"' for value in row.values()) for row in rows]
    metrics_log.write_atomically(out.with_suffix(".csv"), "\n".join(lines) + "\n")


def _reading(rows: Sequence[Row]) -> str:
    """Words which networks got smaller."""
    lines = []
    for row in rows:
        gone = 1 - row["parameters_after"] / row["parameters"]
        saved = 1 - row["macs_after"] / max(1, row["macs"])
        what = (
            f"{gone:.1%} of the parameters and {saved:.1%} of the multiply-adds go"
            if gone
            else "nothing can be removed"
        )
        speed = f"{row[f'ratio_{BATCHES[-1]}']} times as fast" if gone else ""
        what += f"; {speed} with batches of {BATCHES[-1]}" if gone else ""
        lines.append(f"- {row['network']}: {what}.")
    return "## Reading\n\n" + "\n".join(lines)


def _sizes(rows: Sequence[Row]) -> str:
    header = ("", "sparsity", "parameters", "after", "multiply-adds", "after")
    header += ("difference", "ONNX file", "packed file")
    lines = [
        (
            *(row["network"], f"{row['sparsity']:.2%}"),
            *(f"{row[n]:,}" for n in ("parameters", "parameters_after")),
            *(f"{row[n]:,}" for n in ("macs", "macs_after")),
            *(f"{row['difference']:.1e}", f"{row['onnx_bytes']:,} bytes"),
            f"{row['safetensors_bytes']:,} bytes",
        )
        for row in rows
    ]
    return timing.markdown(Table("Sizes", header, lines, "", {})).strip()


def _times(rows: Sequence[Row]) -> str:
    header = [""]
    for batch in BATCHES:
        header += [f"ms, batch {batch}", "after", "ratio"]
    lines = []
    for row in rows:
        cells = [row["network"]]
        for b in BATCHES:
            names = (f"ms_{b}_before", f"ms_{b}_after", f"ratio_{b}")
            cells += [row[name] for name in names]
        lines.append(tuple(cells))
    return timing.markdown(Table("Times", tuple(header), lines, "", {})).strip()
