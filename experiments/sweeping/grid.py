"""The report on a grid of runs, and what can be said of it before they are launched."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.studies import claims, launcher
from experiments.sweeping.points import Point
from jaxsparse import factory, metrics_log
from jaxsparse.reports import formatting, page, records


def check(points: Sequence[Point]) -> None:
    """Refuses what the tables of `build` do not have, before a run is launched.

    Raises:
      ValueError: naming the run and the field.
    """
    for run in (run for point in points for run in point.runs):
        try:
            factory.check_names(launcher.read(run))
        except ValueError as error:
            raise ValueError(f"{run.name}: {error}") from error


def report(points: Sequence[Point], folder: Path) -> Path:
    """Writes one report on all runs that have begun, and a table of the points.

    Returns:
      The report's page; beside it are `sweep.csv`, a row a point and seed, and
      `sweep.md`, a row a point.

    Raises:
      ValueError: if none has begun.
    """
    begun = [
        folder / run.name
        for point in points
        for run in point.runs
        if launcher.status(run, folder / run.name) in ("in progress", launcher.ENDED)
    ]
    if not begun:
        raise ValueError(f"{folder}: no run has begun; see what was said above")
    out = folder / "report"
    written = page.write(begun, out)
    ends = ends_of(points, folder)
    metrics_log.write_atomically(out / "sweep.csv", page.to_csv(ends))
    metrics_log.write_atomically(
        out / "sweep.md", formatting.markdown(show(ends, points))
    )
    return written


def ends_of(points: Sequence[Point], folder: Path) -> pd.DataFrame:
    """Tabulates with what every seed of every point has ended: its last level."""
    rows = []
    for point in points:
        for run in point.runs:
            if launcher.status(run, folder / run.name) != launcher.ENDED:
                continue
            (read,) = records.read_runs([folder / run.name])
            levels = records.frame([read], "level")
            levels = levels[levels["variant"] == records.TICKET]
            last = levels[levels["level"] == levels["level"].max()]
            first = run.overrides.get("seeds.first", 0)
            rows += [
                {"recipe": point.recipe, **point.values}
                | {
                    "seed": first + int(row.replicate),
                    "weights_remaining_percent": 100 * row.density,
                    "test_accuracy_percent": 100 * row.test_accuracy,
                }
                for row in last.itertuples()
            ]
    return pd.DataFrame(rows)


def show(ends: pd.DataFrame, points: Sequence[Point]) -> pd.DataFrame:
    """Words the ends of all points: mean ± sample standard deviation over seeds."""
    rows = []
    varied = {name for point in points for name in point.values}
    for point in points:
        mine = ends
        for name, value in {"recipe": point.recipe, **point.values}.items():
            mine = mine[mine[name] == value] if len(mine) else mine
        for name in varied - point.values.keys():  # those of other points have it
            mine = mine[mine[name].isna()] if name in mine else mine
        row = {"Recipe": point.recipe, **point.values, "Seeds": str(len(mine))}
        for column, title in (
            ("weights_remaining_percent", "Weights remaining (%)"),
            ("test_accuracy_percent", "Test accuracy (%)"),
        ):
            row[title] = claims.spread(mine[column].to_numpy()) if len(mine) else ""
        rows.append(row)
    return pd.DataFrame(rows)
