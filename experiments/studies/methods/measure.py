"""Measure: accuracies, counts of weights and the cost of training."""

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.studies import run_reader
from experiments.studies.run_reader import Reader


def measure(reader: Reader, other: Callable[[str], Reader]) -> dict[str, Any]:
    """Measures a run that has ended.

    Args:
      reader: the run.
      other: not used: runs are compared by their measurements.

    Returns:
      By seed: "accuracy" in percent, "kept", "effective" and "total", numbers of
      weights; "layers", the percentage of each layer that is kept, averaged; "curve"
      and "explored", accuracies and percentages of weights that were ever active, by
      step; "training_flops", multiples of dense training, [] where unknown.
    """
    del other
    rows = reader.last()
    counts = [r for r in reader.last("mask_stats") if r.get("ever_active") is not None]
    explored = run_reader.table(
        counts, "step", lambda row: 100 * row["ever_active"] / row["total"]
    )
    names = rows[0]["layers"]
    return {
        "training_flops": [row["training_multiple"] for row in reader.last("flops")],
        "accuracy": list(map(run_reader.accuracy, rows)),
        "kept": [row["kept"] for row in rows],
        "effective": [row["effective_params"] for row in rows],
        "total": [row["total"] for row in rows],
        "layers": {
            name: float(
                np.mean([100 * np.divide(*row["layers"][name]) for row in rows])
            )
            for name in names
        },
        "curve": reader.curve(),
        "explored": (explored[0], explored[1].tolist()),
    }
