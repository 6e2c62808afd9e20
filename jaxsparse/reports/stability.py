"""Stability: how children of one state, and levels in turn, were recorded to differ.

Of a run that trained children ("segment" and "verdict" records), or compared each level
with the one before ("successive"): tables, their words, and figures. Instability and
rises are in percentage points of error. What lies between children is averaged over the
pairs of each replicate first, so that n counts replicates.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxsparse.reports import formatting, plot_curves, settings, tables
from jaxsparse.reports.plot_curves import Curve, Panel
from jaxsparse.reports.tables import RunRecords

CHILDREN, LEVELS = "segment", "successive"  # kinds of records, and names of files
_PLACES = ("level", "start", "replicate", "remaining")
_MEASURES = ("test", "train", "rise", "l2", "different")
_ALONG = ("alphas", "error")
_HEADINGS = {
    "test": "Instability, test (points)",
    "train": "Instability, train (points)",
    "rise": "Test error above the worse end (points)",
    "l2": "L2 distance",
    "different": "Classified differently (%)",
}
_SHOWN = {
    CHILDREN: ("test", "train", "l2", "different"),
    LEVELS: ("rise", "test", "train", "l2", "different"),
}
ABOUT = {
    CHILDREN: (
        "Stability",
        "Between children that begin at an update of a level's training and differ in "
        "the noise of SGD only: instability, the highest error on the segment less the "
        "mean of its ends. Stable: below 2 points of test error; matching: the level's "
        "ticket is less than 0.2 points of accuracy under the dense network.",
    ),
    LEVELS: (
        "From level to level",
        "Between the networks with which a level and the one before it ended.",
    ),
}
# The threshold of Frankle et al. (2020), by which "stable" was recorded.
_THRESHOLD = (2.0, "stable below 2")


def frame(run: RunRecords, kind: str) -> pd.DataFrame:
    """Reads what was recorded between two networks.

    Args:
      run: whose records.
      kind: `CHILDREN` or `LEVELS`.

    Returns:
      A row a pair: `level`, `start` (update at which children begin; 0 for levels),
      `replicate`, `remaining` in percent, instability on `test` and `train` and `rise`
      of the test error above the worse end in points, `l2`, `different` test examples
      in percent, and the segment's `alphas` and `error`, in percent. Of records about
      the same pair only the last is kept.
    """
    tickets = tables.levels_table([run]).query("arm == 'ticket'")
    remaining = dict(zip(tickets["level"], tickets["weights_remaining"], strict=True))
    rows = {}
    for record in run.records:
        if record.get("kind") != kind:
            continue
        place = (record["stage"], record["replicate"], *record.get("pair", ()))
        rows[place] = _row(record, remaining.get(record["level"], np.nan))
    return pd.DataFrame([*rows.values()], columns=[*_PLACES, *_MEASURES, *_ALONG])


def _row(record: dict[str, Any], remaining: float) -> dict[str, Any]:
    """Takes of a record what the tables and figures show."""
    error = 100 * np.array(record["test_error"], float)
    return {
        "level": record["level"],
        "start": _start(record) if record["kind"] == CHILDREN else 0,
        "replicate": record["replicate"],
        "remaining": remaining,
        "test": 100 * record["test_instability"],
        "train": 100 * record["train_instability"],
        "rise": np.max(error) - max(error[0], error[-1]),
        # Networks that diverged have no distance.
        "l2": np.nan if record["l2"] is None else record["l2"],
        "different": 100 * record["disagreement"],
        "alphas": record["alphas"],
        "error": error,
    }


def _start(record: dict[str, Any]) -> int:
    """Reads from a stage's name at which update its children begin."""
    return int(record["stage"].rpartition("_")[2])


def table(run: RunRecords, kind: str) -> pd.DataFrame:
    """Summarises over replicates what was recorded between two networks.

    Args:
      run: whose records.
      kind: `CHILDREN` or `LEVELS`.

    Returns:
      One row a level and start: `remaining`, `n` replicates, and the measures of
      `frame`, each a mean with its deviation in the column `<measure>_sd`; of children
      `stable` and `matching` as they were recorded, None where they were not.
    """
    pairs = frame(run, kind)
    means = pairs.groupby(list(_PLACES), dropna=False)[list(_MEASURES)].mean()
    spec = {"n": ("test", "count")}
    for name in _MEASURES:
        spec |= {name: (name, "mean"), f"{name}_sd": (name, "std")}
    by = ["level", "start", "remaining"]
    made = means.reset_index().groupby(by, dropna=False).agg(**spec).reset_index()
    if kind == LEVELS:
        return made.drop(columns="start")
    said = {
        (record["level"], record["start"]): record
        for record in run.records
        if record.get("kind") == "verdict"
    }
    places = list(zip(made["level"], made["start"], strict=True))
    for name in ("stable", "matching"):
        made[name] = pd.Series(
            [said.get(place, {}).get(name) for place in places], dtype=object
        )
    return made


def show(made: pd.DataFrame) -> pd.DataFrame:
    """Makes text of `table`; columns that say nothing are left out."""
    kind = CHILDREN if "start" in made else LEVELS
    shown = {
        "Level": [str(level) for level in made["level"]],
        "Weights remaining (%)": [formatting.percent(x) for x in made["remaining"]],
    }
    if kind == CHILDREN:
        shown["From update"] = [f"{start:,}" for start in made["start"]]
    shown["n"] = [str(n) for n in made["n"]]
    for name in _SHOWN[kind]:
        shown[_HEADINGS[name]] = [
            formatting.plus_minus(mean, sd)
            for mean, sd in zip(made[name], made[f"{name}_sd"], strict=True)
        ]
    answers = {True: "yes", False: "no"}
    for name in ("stable", "matching"):
        if name in made and made[name].notna().any():
            said = [answers.get(value, formatting.MISSING) for value in made[name]]
            shown[name.capitalize()] = said
    return pd.DataFrame(shown)


def draw(run: RunRecords) -> dict[str, Figure]:
    """Draws the figures that there are records for, by name: see `gallery`."""
    children, levels = frame(run, CHILDREN), frame(run, LEVELS)
    drawn = {
        "onset": _onset(children, title=settings.title([run])),
        "instability": _over_levels(children, levels, title=settings.title([run])),
        "segments": _segments(children, title=settings.title([run])),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _onset(children: pd.DataFrame, *, title: str) -> Figure | None:
    """Draws instability over the updates at which children begin."""
    if children["start"].nunique() < 2:
        return None
    panels = []
    for part in ("test", "train"):
        lines = [
            _curve(_of_level(level), rows, x="start", y=part)
            for level, rows in children.groupby("level")
        ]
        panels.append(Panel(f"{part} error", lines, _THRESHOLD))
    return plot_curves.curves(
        panels,
        x="update at which children begin",
        y="instability (points)",
        title=title,
        scale="steps",
        ordered=True,
    )


def _over_levels(
    children: pd.DataFrame, levels: pd.DataFrame, *, title: str
) -> Figure | None:
    """Draws instability, and rises from level to level, by the weights remaining."""
    lines = []
    if children["level"].nunique() > 1:
        lines = [
            _curve(f"from update {start:,}", rows, x="remaining", y="test")
            for start, rows in children.groupby("start")
        ]
    follows = []
    if len(levels):
        follows = [_curve("to the level before", levels, x="remaining", y="rise")]
    return plot_curves.curves(
        [
            Panel("instability between children", lines, _THRESHOLD),
            Panel("rise above the worse of two levels", follows, _THRESHOLD),
        ],
        x="weights remaining (%)",
        y="test error (points)",
        title=title,
        scale="remaining",
    )


def _segments(children: pd.DataFrame, *, title: str) -> Figure | None:
    """Draws the test error between children, a panel a level."""
    panels = []
    for level, rows in children.groupby("level"):
        lines = []
        for start, part in rows.groupby("start"):
            errors = [
                np.mean(np.stack(of["error"].to_list()), axis=0)
                for _, of in part.groupby("replicate")
            ]
            name = f"from update {start:,}"
            lines.append(Curve(name, part["alphas"].iloc[0], np.stack(errors)))
        panels.append(Panel(_of_level(level), lines))
    y = "test error (%)"
    return plot_curves.segments(panels, title=title, y=y, ordered=True)


def _of_level(level: Any) -> str:
    """Names a level."""
    return f"level {level}"


def _curve(label: str, rows: pd.DataFrame, *, x: str, y: str) -> Curve:
    """Makes a line of a measure, averaged over the pairs of each replicate."""
    wide = rows.pivot_table(index="replicate", columns=x, values=y, aggfunc="mean")
    return Curve(label, wide.columns.to_numpy(float), wide.to_numpy(float))
