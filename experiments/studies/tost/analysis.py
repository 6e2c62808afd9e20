"""What the study reads of its runs: accuracies, and how weights were rescaled."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.studies import launcher, run_reader
from experiments.studies.run_reader import Reader
from experiments.studies.tost import variants

Found = dict[str, Any]


def measure(folder: Path, network: str, scale: str, data_dir: str) -> Found:
    """Reads the arms of a network that have ended; {} if there is none.

    Returns:
      "missing", what has not ended and why; and "cells", by cell and arm what
      `of_records` reads, and the factors of `of_factors` where weights were rescaled.
    """
    runs = variants.of_network(network, scale)
    readers = run_reader.ended(runs, folder, data_dir)
    grid = variants.GRIDS[scale][network]
    cells: dict[variants.Cell, Found] = {}
    for cell in variants.cells(grid):
        for arm in variants.arms(grid, cell):
            reader = readers.get(cell.named(network, arm))
            if reader is not None:
                found = of_records(reader) | of_factors(reader)
                cells.setdefault(cell, {})[arm] = found
    if not cells:
        return {}
    return {"missing": launcher.missing(runs, folder), "cells": cells}


def of_records(reader: Reader) -> Found:
    """Reads accuracies in percent, at the end and by update, and counts of weights."""
    rows = reader.of_kind("level", arm="ticket")
    steps, curve = run_reader.table(
        reader.of_kind("eval", arm="ticket"),
        "step",
        lambda row: 100 * row["test_accuracy"],
    )
    in_order = sorted(rows, key=lambda row: row["replicate"])
    return {
        "accuracy": [100 * row["test_accuracy"] for row in in_order],
        "kept": rows[0]["kept"],
        "total": rows[0]["total"],
        "live": [row["live"] for row in in_order],
        "steps": rows[0]["step"],
        "epochs": rows[0]["epoch"],
        "curve": (steps, curve.tolist()),
    }


def of_factors(reader: Reader) -> Found:
    """Reads by what every tensor was multiplied, [seeds] each; {} if none was."""
    path = reader.workdir / "rescaling.json"
    if not path.exists():
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))
    names = rows[0]["factors"]
    return {
        "factors": {name: [row["factors"][name] for row in rows] for name in names},
        "constrained": [100 * float(np.mean(row["constrained"])) for row in rows],
    }
