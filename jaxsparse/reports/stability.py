"""Stability: error barriers between copies of a network, and between levels.

For runs with instability analysis (records "child_barrier" and "stability"), or with
comparisons of each level with the one before ("level_barrier"), this module has the
tables, their text, and the figures. The "pair" of a "child_barrier" has the numbers of
two copies, or "parent" and the number of the copy that is compared with the network it
copies. Instability is in percentage points of error.
Barriers between copies are averaged over the pairs of each replicate first, so that n
counts replicates.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxsparse.reports import formatting, plot_curves, settings, tables
from jaxsparse.reports.records import RunRecords
from jaxsparse.stages import TICKET

COPIES, LEVELS = "child_barrier", "level_barrier"  # kinds of records, names of files
MEASURES = ("test", "train", "rise", "l2", "different")
_PLACES = ("level", "start", "replicate", "remaining")
_HEADINGS = {
    "test": "Instability, test (points)",
    "train": "Instability, train (points)",
    "rise": "Test error above the worse end (points)",
    "l2": "L2 distance",
    "different": "Classified differently (%)",
}
_SHOWN = {
    COPIES: ("test", "train", "l2", "different"),
    LEVELS: ("rise", "test", "train", "l2", "different"),
}
ABOUT = {
    COPIES: (
        "Stability",
        "Between copies that start at an update of a level's training and differ only "
        "in SGD noise, or between each copy and the network that it copies. "
        "Instability: the highest error on their linear interpolation "
        "minus the mean error of its ends. Stable: below 2 points of test error. "
        "Matching: the level's ticket is less than 0.2 points of accuracy below the "
        "dense network.",
    ),
    LEVELS: (
        "From level to level",
        "Between the networks at the end of a level and of the level before it.",
    ),
}
# The threshold of Frankle et al. (2020), by which "stable" was recorded.
THRESHOLD = (2.0, "stable below 2")


def frame(run: RunRecords, kind: str) -> pd.DataFrame:
    """Reads the error barriers between pairs of networks.

    Args:
      run: run whose records are used.
      kind: `COPIES` or `LEVELS`.

    Returns:
      One row for each pair: `level`, `start` (update at which copies start; 0 for
      levels), `replicate`, `remaining` in percent; instability on `test` and `train`,
      and `rise` of the test error above the worse end, in points; `l2`; `different`,
      percent of test examples that the two classify differently; `alphas` and `error`,
      coefficients and test error in percent of the interpolation. Of records of one
      pair only the last is kept.
    """
    columns = [*_PLACES, *MEASURES, "alphas", "error"]
    records = [record for record in run.records if record.get("kind") == kind]
    if not records:  # most runs have none, and the table of levels takes a while
        return pd.DataFrame(columns=columns)
    tickets = tables.levels_table([run])
    tickets = tickets.loc[tickets["variant"] == TICKET]
    remaining = dict(zip(tickets["level"], tickets["weights_remaining"], strict=True))
    rows = {}
    for record in records:
        place = (record["stage"], record["replicate"], *record.get("pair", ()))
        density = remaining.get(record["level"], np.nan)
        rows[place] = read_barrier(record) | {"remaining": density}
    return pd.DataFrame([*rows.values()], columns=columns)


def read_barrier(record: dict[str, Any]) -> dict[str, Any]:
    """Converts the record of one barrier to percent and percentage points.

    Args:
      record: a record of kind `COPIES` or `LEVELS`.

    Returns:
      A row of `frame`, without `remaining`.
    """
    error = 100 * np.array(record["test_error"], float)
    copies = record["kind"] == COPIES
    return {
        "level": record["level"],
        # The name of the stage contains the update at which the copies start.
        "start": int(record["stage"].rpartition("_")[2]) if copies else 0,
        "replicate": record["replicate"],
        "test": 100 * record["test_instability"],
        "train": 100 * record["train_instability"],
        "rise": np.max(error) - max(error[0], error[-1]),
        # Networks that diverged have no distance.
        "l2": np.nan if record["l2"] is None else record["l2"],
        "different": 100 * record["disagreement"],
        "alphas": record["alphas"],
        "error": error,
    }


def table(run: RunRecords, kind: str) -> pd.DataFrame:
    """Summarizes error barriers over replicates.

    Args:
      run: run whose records are used.
      kind: `COPIES` or `LEVELS`.

    Returns:
      One row for each level and start: `remaining`, `n` replicates, and the measures of
      `frame`, each a mean with its standard deviation `<measure>_sd`; for copies also
      `stable` and `matching` as they were recorded, None if they were not.
    """
    pairs = frame(run, kind)
    places = list(_PLACES)
    means = pairs.groupby(places, dropna=False)[list(MEASURES)].mean().reset_index()
    by = ["level", "start", "remaining"]
    made = tables.summarize(means, by, MEASURES)
    if kind == LEVELS:
        return made.drop(columns="start")
    judged = {
        (record["level"], record["start"]): record
        for record in run.records
        if record.get("kind") == "stability"
    }
    starts = list(zip(made["level"], made["start"], strict=True))
    for name in ("stable", "matching"):
        values = [judged.get(start, {}).get(name) for start in starts]
        made[name] = pd.Series(values, dtype=object)
    return made


def show(made: pd.DataFrame) -> pd.DataFrame:
    """Formats `table`, without columns that are empty.

    Args:
      made: the table, as `table` returns it.
    """
    kind = COPIES if "start" in made else LEVELS
    shown = {
        "Level": [str(level) for level in made["level"]],
        "Weights remaining (%)": [formatting.percent(x) for x in made["remaining"]],
    }
    if kind == COPIES:
        shown["From update"] = [f"{start:,}" for start in made["start"]]
    shown["n"] = [str(n) for n in made["n"]]
    for name in _SHOWN[kind]:
        shown[_HEADINGS[name]] = formatting.means(made, name)
    words = {True: "yes", False: "no"}
    for name in ("stable", "matching"):
        if name in made and made[name].notna().any():
            values = [words.get(value, formatting.MISSING) for value in made[name]]
            shown[name.capitalize()] = values
    return pd.DataFrame(shown)


def draw(run: RunRecords) -> dict[str, Figure]:
    """Draws the figures for which there are records, by the names of their files.

    Args:
      run: run whose records are used.
    """
    copies, levels = frame(run, COPIES), frame(run, LEVELS)
    title = settings.title([run])
    drawn = {
        "onset": _onset(copies, title),
        "instability": _over_levels(copies, levels, title),
        "interpolation": _interpolation(copies, title),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _lines(
    pairs: pd.DataFrame, panel: str, label: str, *, x: str, y: str, name: str = ""
) -> pd.DataFrame:
    """Makes the rows of lines, averaged over the pairs of each replicate.

    Args:
      pairs: from `frame`.
      panel: title of the panel.
      label: format of the labels, such as "level {}".
      x: column of the positions.
      y: column of the values.
      name: column that the labels contain; "" for none.
    """
    by = ["replicate", x, *([name] if name else [])]
    rows = pairs.groupby(by)[y].mean().reset_index()
    labels = [label.format(value) for value in rows[name]] if name else label
    return pd.DataFrame(
        {
            "panel": panel,
            "label": labels,
            "replicate": rows["replicate"],
            "x": rows[x],
            "y": rows[y],
        }
    )


def _onset(copies: pd.DataFrame, title: str) -> Figure | None:
    """Draws instability against the update at which copies start."""
    if copies["start"].nunique() < 2:
        return None
    parts = [
        _lines(copies, f"{part} error", "level {}", x="start", y=part, name="level")
        for part in ("test", "train")
    ]
    return plot_curves.curves(
        pd.concat(parts),
        x="update at which copies start",
        y="instability (points)",
        title=title,
        scale="steps",
        ordered=True,
        threshold=THRESHOLD,
    )


def _over_levels(
    copies: pd.DataFrame, levels: pd.DataFrame, title: str
) -> Figure | None:
    """Draws instability, and barriers from level to level, over weights remaining."""
    parts = []
    if copies["level"].nunique() > 1:
        panel = "instability between copies"
        place = {"x": "remaining", "y": "test", "name": "start"}
        parts.append(_lines(copies, panel, "from update {:,}", **place))
    if len(levels):
        panel = "rise above the worse of two levels"
        place = {"x": "remaining", "y": "rise"}
        parts.append(_lines(levels, panel, "to the level before", **place))
    if not parts:
        return None
    return plot_curves.curves(
        pd.concat(parts),
        x="weights remaining (%)",
        y="test error (points)",
        title=title,
        scale="remaining",
        threshold=THRESHOLD,
    )


def _interpolation(copies: pd.DataFrame, title: str) -> Figure | None:
    """Draws the test error between copies, one panel for each level."""
    points = copies.explode(["alphas", "error"]).astype(
        {"alphas": float, "error": float}
    )
    parts = [
        _lines(
            *(rows, f"level {level}", "from update {:,}"),
            x="alphas",
            y="error",
            name="start",
        )
        for level, rows in points.groupby("level")
    ]
    if not parts:
        return None
    y = "test error (%)"
    return plot_curves.interpolations(pd.concat(parts), title=title, y=y, ordered=True)
