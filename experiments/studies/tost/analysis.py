"""Analysis: test accuracies, and the factors by which weights were rescaled."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.studies import launcher, run_reader
from experiments.studies.run_reader import Reader
from experiments.studies.tost import variants
from jaxsparse import old_names

Found = dict[str, Any]


def measure(folder: Path, network: str, scale: str, data_dir: str) -> Found:
    """Reads the runs of a network that have ended; {} if there are none.

    Args:
      folder: directory of all runs.
      network: one of `variants.NETWORKS`.
      scale: one of `studies.SCALES`.
      data_dir: directory of prepared datasets; "" for the one in the configs.

    Returns:
      "missing", the runs that have not ended and why; and "cells", by cell and variant
      what `of_records` and `of_factors` read.
    """
    grid = variants.GRIDS[scale].get(network)
    if grid is None:
        return {}
    runs = variants.of_network(network, scale)
    readers = run_reader.ended(runs, folder, data_dir)
    cells: dict[variants.Cell, Found] = {}
    for cell in variants.cells(grid):
        for variant in variants.of_cell(grid, cell):
            reader = readers.get(cell.named(network, variant))
            if reader is not None:
                found = of_records(reader) | of_factors(reader)
                cells.setdefault(cell, {})[variant] = found
    if not cells:
        return {}
    return {"missing": launcher.missing(runs, folder), "cells": cells}


def of_records(reader: Reader) -> Found:
    """Reads accuracies in percent, at the end and by update, and counts of weights.

    Args:
      reader: a run that has ended.
    """
    rows = reader.of_kind("level", variant="ticket")
    steps, curve = run_reader.table(
        reader.of_kind("eval", variant="ticket"),
        "step",
        lambda row: 100 * row["test_accuracy"],
    )
    in_order = sorted(rows, key=lambda row: row["replicate"])
    return {
        "accuracy": [100 * row["test_accuracy"] for row in in_order],
        "kept": rows[0]["kept"],
        "total": rows[0]["total"],
        "effective_params": [row["effective_params"] for row in in_order],
        "steps": rows[0]["step"],
        "epochs": rows[0]["epoch"],
        "curve": (steps, curve.tolist()),
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
