"""Measure: test accuracies, and the factors by which weights were rescaled."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.studies import run_reader
from experiments.studies.run_reader import Reader
from jaxsparse import old_names

Found = dict[str, Any]


def measure(reader: Reader, other: Callable[[str], Reader]) -> Found:
    """Measures a run that has ended.

    Args:
      reader: the run.
      other: not used: runs are compared by their measurements.

    Returns:
      What `of_records` and `of_factors` read.
    """
    del other
    return of_records(reader) | of_factors(reader)


def of_records(reader: Reader) -> Found:
    """Reads accuracies in percent, at the end and by update, and counts of weights.

    Args:
      reader: a run that has ended.
    """
    rows = reader.last()
    return {
        "accuracy": list(map(run_reader.accuracy, rows)),
        "kept": rows[0]["kept"],
        "total": rows[0]["total"],
        "effective_params": [row["effective_params"] for row in rows],
        "steps": rows[0]["step"],
        "epochs": rows[0]["epoch"],
        "curve": reader.curve(),
    }


def of_factors(reader: Reader) -> Found:
    """Reads the factors of every tensor [seeds]; {} if nothing was rescaled.

    Args:
      reader: a run that has ended.

    Returns:
      "factors" by tensor; and "constrained", percent of the updates of each seed in
      which the gradient norm was above its maximum.
    """
    path = old_names.find_file(reader.workdir, "gradinit.json")
    if not path.exists():
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))
    names = rows[0]["factors"]
    return {
        "factors": {name: [row["factors"][name] for row in rows] for name in names},
        "constrained": [100 * float(np.mean(row["constrained"])) for row in rows],
    }
