"""The page of what compaction removes from trained networks, made from its CSV file."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks import row_origins, timing
from experiments.benchmarks.compacted_networks import BATCHES
from experiments.benchmarks.timing import Table
from jaxsparse import metrics_log

Row = dict[str, Any]
INTRODUCTION = """
Each network was trained by one short run (n = 1), far below published lengths; the
tickets of ResNet-8 are levels of one run. Runs have different lengths, so that their
accuracies do not compare methods. Pruned weights count as parameters, and so do running
statistics of BatchNorm. Outputs of both networks are compared on random images of
several batch sizes; the largest difference of a logit is in the table. Each smaller
network was exported to ONNX, where ONNX Runtime computed the same logits, and to a
packed safetensors file, which was read again. Times are of the forward pass compiled by
XLA with dense weights, of both networks in turns: median and range over 5 turns. XLA
uses all cores that the process may use; their number is in the list below. A ratio
above 1 means that the smaller network is faster. Fewer multiply-adds do not always mean
less time. Rows in which nothing can be removed time the same network twice: they show
the noise.
""".strip()
COUNTS = ("parameters", "parameters_after", "macs", "macs_after")
COUNTS += ("onnx_bytes", "safetensors_bytes")
NUMBERS = ("sparsity", "accuracy", "difference")


def write_rows(out: Path, rows: Sequence[Row]) -> None:
    """Writes the CSV file.

    Args:
      out: path of the file without its ending.
      rows: one row for each network, with the same cells. None is an empty cell.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, [*rows[0]], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    metrics_log.write_atomically(out.with_suffix(".csv"), text.getvalue())


def write_page(out: Path) -> None:
    """Writes the page from the CSV file.

    Args:
      out: path of both files without their endings.
    """
    with out.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        rows: list[Row] = [*csv.DictReader(file)]
    for row in rows:
        row |= {name: int(row[name]) if row[name] else None for name in COUNTS}
        row |= {name: float(row[name]) for name in NUMBERS}
    parts = [
        "# Compaction of trained networks on a CPU",
        "`python experiments/compaction.py --data_dir=DIR`",
        INTRODUCTION,
        row_origins.describe(rows, lambda row: row["network"]),
        *(_reading(rows), _sizes(rows), _times(rows)),
    ]
    metrics_log.write_atomically(out.with_suffix(".md"), "\n\n".join(parts) + "\n")


def _count(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _reading(rows: Sequence[Row]) -> str:
    """Words which networks got smaller."""
    lines = []
    for row in rows:
        gone = 1 - row["parameters_after"] / row["parameters"]
        saved = "an unknown part"
        if row["macs"]:
            saved = f"{1 - row['macs_after'] / row['macs']:.1%}"
        what = "nothing can be removed"
        if gone:
            batch = BATCHES[-1]
            what = (
                f"{gone:.1%} of the parameters and {saved} of the multiply-adds go; "
                f"{row[f'ratio_{batch}']} times as fast with batches of {batch}"
            )
        lines.append(f"- {row['network']}: {what}.")
    return "## Reading\n\n" + "\n".join(lines)


def _sizes(rows: Sequence[Row]) -> str:
    header = (
        "",
        "sparsity",
        "test accuracy",
        "parameters",
        "after",
        "multiply-adds",
        "after",
    )
    header += ("difference", "ONNX file", "packed file")
    lines = [
        (
            *(row["network"], f"{row['sparsity']:.2%}", f"{row['accuracy']:.2%}"),
            *(_count(row[name]) for name in COUNTS[:4]),
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
