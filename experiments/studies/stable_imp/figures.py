"""Figures: the measurements of the study, drawn."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.studies import figures
from experiments.studies.stable_imp import quantities, tables, variants
from experiments.studies.tables import concat, lines
from jaxsparse.reports import plot_curves

Found = dict[str, Any]
_REMAINING = "weights remaining (%)"
_THRESHOLD = (quantities.STABLE, "stable below 2")
_SHOWN = 10.7  # percent of weights remaining, at which weights are shown
CAPTIONS = {
    "onset": (
        "Instability, of test error in percentage points, between copies that start at "
        "an update of training and differ in the order of data only."
    ),
    "onset_interpolations": (
        "Test error on the linear interpolation of two copies, by the update at which "
        "they start."
    ),
    "levels": (
        "Test accuracy of tickets and of their controls, by the weights remaining."
    ),
    "stability": (
        "Instability of levels, and rise of the test error between a level and the one "
        "before, in percentage points."
    ),
    "angles": (
        "Angular distance between the solutions of levels, over the weights that both "
        "have, in right angles, averaged over seeds; the last row and column are the "
        "initialization."
    ),
    "thresholds": "Pruning threshold: the largest magnitude pruned after each level.",
    "histogram": (
        "Weights of the first seed at the level nearest to 10.7 % remaining; lines: "
        "the next pruning threshold."
    ),
}


def draw(setting: str, scale: str, found: Found, title: str) -> dict[str, Any]:
    """Draws all figures; None for a figure without content.

    Args:
      setting: one of `variants.SETTINGS`.
      scale: one of `studies.SCALES`.
      found: from `variants.arrange`.
      title: what was trained.
    """
    names = tables.all_runs(found)
    labels = {name: variants.label(name, setting, scale) for name in names}
    over = {"x": _REMAINING, "title": title, "scale": "remaining"}
    thresholds = tables.thresholds_frame(found)
    return {
        "onset": _onset(found, title),
        "onset_interpolations": _interpolations(found, title),
        "levels": plot_curves.curves(
            _levels(found, labels), y="test accuracy (%)", **over
        ),
        "stability": plot_curves.curves(
            _stability(found, labels),
            y="rise of the test error (points)",
            threshold=_THRESHOLD,
            **over,
        ),
        "angles": _angles(found, labels, title),
        "thresholds": plot_curves.curves(
            _over_levels(thresholds, found, labels, "threshold"),
            y="pruning threshold",
            **over,
        ),
        "histogram": _histogram(found, labels, title),
    }


def _level(level: int) -> str:
    """Returns the label of a level."""
    return f"level {level}" if level else "dense"


def _onset(found: Found, title: str) -> Figure | None:
    """Draws instability against the update at which copies start."""
    frame = tables.onset_frame(found)
    if frame.empty:
        return None
    names = {"seed": "replicate", "update": "x", "test": "y"}
    return plot_curves.curves(
        frame.rename(columns=names).assign(panel="", label=frame["level"].map(_level)),
        x="update at which copies start",
        y="instability (points)",
        title=title,
        scale="steps",
        threshold=_THRESHOLD,
    )


def _interpolations(found: Found, title: str) -> Figure | None:
    """Draws the test error between two copies, by where they start."""
    parts = [
        lines(
            *(part["alphas"], part["error"]),
            panel=_level(line["level"]),
            label=f"from {part['step']}",
        )
        for line in found.get("onset", [])
        for part in line["interpolations"]
    ]
    table = concat(parts, plot_curves.COLUMNS)
    return plot_curves.interpolations(table, title=title, ordered=True)


def _over_levels(
    frame: pd.DataFrame, found: Found, labels: dict[str, str], measure: str
) -> pd.DataFrame:
    """Makes the rows of lines over weights remaining, one line for each variant."""
    remaining = {
        (name, level): percent
        for name, entry in tables.all_runs(found).items()
        for level, percent in zip(entry["levels"], entry["remaining"], strict=True)
    }
    if frame.empty:
        return pd.DataFrame(columns=plot_curves.COLUMNS)
    places = zip(frame["variant"], frame["level"], strict=True)
    return pd.DataFrame(
        {
            "panel": "",
            "label": frame["variant"].map(labels),
            "replicate": frame["seed"],
            "x": [remaining[place] for place in places],
            "y": frame[measure],
        }
    )


def _levels(found: Found, labels: dict[str, str]) -> pd.DataFrame:
    """Makes the rows of accuracies: one panel for each variant."""
    frame = tables.levels_frame(found)
    columns = {f"{name}_percent": name.replace("_", " ") for name in tables.CONTROLS}
    parts = []
    for column, label in ({"ticket_percent": "tickets"} | columns).items():
        if column not in frame:
            continue
        rows = _over_levels(frame, found, labels, column)
        parts.append(rows.assign(panel=rows["label"], label=label))
    return pd.concat(parts)


def _stability(found: Found, labels: dict[str, str]) -> pd.DataFrame:
    """Makes the rows of instability, and of rises from level to level."""
    frame = tables.stability_frame(found)
    panels = {"test": "copies of a level", "rise": "a level and the one before"}
    return pd.concat(
        _over_levels(frame, found, labels, measure).assign(panel=panel)
        for measure, panel in panels.items()
    )


def _angles(found: Found, labels: dict[str, str], title: str) -> Figure | None:
    """Draws the angles between levels, of variants with as many levels as any."""
    each = found["variants"]
    if not each:
        return None
    names = max((entry["labels"] for entry in each.values()), key=len)
    entries = {
        labels[name]: np.mean(entry["angles"], axis=0)
        for name, entry in each.items()
        if len(entry["labels"]) == len(names)
    }
    top = max(1.0, *(float(np.max(matrix)) for matrix in entries.values()))
    return figures.matrices(
        entries,
        labels=names,
        axis="level",
        measure="right angles",
        limits=(0.0, top),
        title=title,
    )


def _histogram(found: Found, labels: dict[str, str], title: str) -> Figure | None:
    """Draws the weights at the level that is nearest to 10.7 % remaining."""
    parts, thresholds = [], {}
    for name, entry in found["variants"].items():
        remaining = np.asarray(entry["remaining"][: len(entry["thresholds"][0])])
        if not len(remaining) or not entry.get("histograms"):
            continue
        place = int(np.argmin(np.abs(np.log(remaining / _SHOWN))))
        edges = np.asarray(entry["histograms"][place]["edges"])
        values = {
            "label": labels[name],
            "value": (edges[:-1] + edges[1:]) / 2,
            "count": entry["histograms"][place]["counts"],
        }
        parts.append(pd.DataFrame(values))
        thresholds[labels[name]] = entry["thresholds"][0][place]
    if not parts:
        return None
    return figures.histograms(
        pd.concat(parts), x="weight", title=title, thresholds=thresholds
    )
