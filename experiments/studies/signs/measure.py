"""Measure: test accuracies of the last level, of tickets and of controls."""

from collections.abc import Callable
from typing import Any

from experiments.studies import run_reader
from experiments.studies.run_reader import Reader


def measure(reader: Reader, other: Callable[[str], Reader]) -> dict[str, Any]:
    """Measures a run that has ended.

    Args:
      reader: the run.
      other: not used: runs are compared by their measurements.

    Returns:
      "accuracy", by seed the test accuracy of the last level in percent; "controls",
      the same of each control; "steps" of the last level; and "remaining", the
      percentage of its weights.
    """
    del other
    rows = reader.last()
    level = rows[0]["level"]
    controls: dict[str, list[float]] = {}
    for row in sorted(reader.of_kind("level"), key=lambda row: row["replicate"]):
        if row["level"] == level and row["variant"] != rows[0]["variant"]:
            controls.setdefault(row["variant"], []).append(run_reader.accuracy(row))
    return {
        "accuracy": list(map(run_reader.accuracy, rows)),
        "controls": controls,
        "steps": rows[0]["step"],
        "remaining": 100 * rows[0]["density"],
    }
