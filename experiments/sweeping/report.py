"""The report over a sweep, and tables with one row for each point of the grid."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.studies import run_reader
from experiments.studies.effects import spread
from experiments.sweeping.points import Point
from jaxsparse import metrics_log
from jaxsparse.reports import flop_costs, formatting, page, records
from jaxsparse.stages import TICKET

MULTIPLES = {
    "training_multiple": "Training FLOPs (x dense)",
    "inference_multiple": "Inference FLOPs (x dense)",
}
_KEY = ["run", "level", "replicate"]


def write(points: Sequence[Point], folder: Path) -> Path:
    """Writes one report over all runs that have started, and the tables of the points.

    Args:
      points: the points of the grid.
      folder: folder of the sweep, with a run directory for each run.

    Returns:
      The path of the report's page. Beside it are `sweep.csv`, with a row for each
      point and seed, and `sweep.md`, with a row for each point.

    Raises:
      ValueError: if no run has started.
    """
    started = [
        folder / run.name
        for point in points
        for run in point.runs
        if run_reader.status(run, folder / run.name)
        in ("in progress", run_reader.ENDED)
    ]
    if not started:
        raise ValueError(
            f"{folder}: expected a run that has started, got none; see the errors above"
        )
    out = folder / "report"
    written = page.write(started, out)
    results = read_results(points, folder)
    metrics_log.write_atomically(out / "sweep.csv", page.to_csv(results))
    summary = summarize(results, points)
    metrics_log.write_atomically(out / "sweep.md", formatting.markdown(summary))
    return written


def read_results(points: Sequence[Point], folder: Path) -> pd.DataFrame:
    """Tabulates the last level of every seed of the runs that have ended.

    Args:
      points: the points of the grid.
      folder: folder of the sweep.

    Returns:
      A row for each point and seed: the recipe, the varied fields, the seed, and the
      density and test accuracy in %, and the FLOPs of training and inference as
      multiples of the dense network, NaN if they are unknown.
    """
    rows = []
    for point in points:
        for run in point.runs:
            if run_reader.status(run, folder / run.name) != run_reader.ENDED:
                continue
            (read,) = records.read_runs([folder / run.name])
            levels = records.frame([read], "level")
            levels = levels[levels["variant"] == TICKET]
            last = levels[levels["level"] == levels["level"].max()]
            last = last.merge(
                flop_costs.costs_table([read])[[*_KEY, *MULTIPLES]], on=_KEY, how="left"
            )
            first = run.overrides.get("seeds.first", 0)
            rows += [
                {"recipe": point.recipe, **point.values}
                | {
                    "seed": first + int(row.replicate),
                    "weights_remaining_percent": 100 * row.density,
                    "test_accuracy_percent": 100 * row.test_accuracy,
                }
                | {name: getattr(row, name) for name in MULTIPLES}
                for row in last.itertuples()
            ]
    return pd.DataFrame(rows)


def summarize(results: pd.DataFrame, points: Sequence[Point]) -> pd.DataFrame:
    """Summarizes every point as mean ± sample standard deviation over its seeds.

    Args:
      results: what `read_results` returned.
      points: the points of the grid.
    """
    rows = []
    varied = {name for point in points for name in point.values}
    for point in points:
        own = results
        for name, value in {"recipe": point.recipe, **point.values}.items():
            own = own[own[name] == value] if len(own) else own
        for name in varied - point.values.keys():  # fields of other points
            own = own[own[name].isna()] if name in own else own
        row = {"Recipe": point.recipe, **point.values, "Seeds": str(len(own))}
        for column, title in (
            ("weights_remaining_percent", "Weights remaining (%)"),
            ("test_accuracy_percent", "Test accuracy (%)"),
        ):
            row[title] = spread(own[column].to_numpy()) if len(own) else ""
        for column, title in MULTIPLES.items():
            mean = own[column].mean() if column in own else math.nan
            row[title] = "" if math.isnan(mean) else f"{mean:.3g}x"
        rows.append(row)
    return pd.DataFrame(rows)
