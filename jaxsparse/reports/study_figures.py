"""Study figures: matrices, histograms and points that studies have in common, drawn.

As in `figures`, each function returns a new `matplotlib.figure.Figure`, made without
global state; None if there is nothing to draw. They take plain numbers: arrays, or
lists in which None is NaN. What is not finite is left out, and so are entries of which
nothing is left. Lines are the business of `study_lines`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from jaxsparse.reports import arrays, plot_style

_COLUMNS = 4
_MOST_TICKS = 9


class Measure(NamedTuple):
    """Square matrices of one measure.

    Attributes:
      name: of the measure, such as "angular distance"; labels the colour bar.
      entries: by what to call them, [m m].
      limits: what is darkest and what lightest; None for the least and the greatest
        value of all entries.
    """

    name: str
    entries: Mapping[str, Any]
    limits: tuple[float, float] | None = None


class Values(NamedTuple):
    """One histogram of several.

    Attributes:
      label: for the legend.
      values: [n].
      threshold: vertical lines stand so far from 0 on either side; None for none.
    """

    label: str
    values: Any
    threshold: float | None = None


class Points(NamedTuple):
    """One group of points.

    Attributes:
      label: for the legend.
      x: [m].
      y: [m].
      x_sd: bars to either side, [m]; None for none.
      y_sd: bars up and down, [m]; None for none.
    """

    label: str
    x: Any
    y: Any
    x_sd: Any = None
    y_sd: Any = None


def matrices(
    measures: Sequence[Measure], *, labels: Sequence[str], axis: str, title: str
) -> Figure | None:
    """Draws square matrices as heat maps, with one colour bar a measure.

    Args:
      measures: each begins a new row, and at most four entries stand in a row.
      labels: of rows and columns, m names, such as rounds and at last "init". Those
        that would be too near each other are not shown, but the last is.
      axis: what rows and columns are, such as "round".
      title: of the figure.

    Returns:
      The figure, hatched where a value is not finite; None if all of them are not.

    Raises:
      ValueError: for a matrix of another shape than labels by labels.
    """
    parts = [(measure, _rows(measure, len(labels))) for measure in measures]
    parts = [(measure, rows) for measure, rows in parts if rows]
    if not parts:
        return None
    count = sum(len(rows) for _, rows in parts)
    columns = max(len(row) for _, rows in parts for row in rows)
    size = (1.8 + 2.9 * columns, 1.1 + 2.9 * count)
    figure = Figure(figsize=size, layout="constrained")
    # A column of their own for colour bars keeps the others equally wide.
    grid = figure.add_gridspec(count, columns + 1, width_ratios=[1] * columns + [0.06])
    top = 0
    for measure, rows in parts:
        limits = measure.limits or _extent(rows)
        bottom = top + len(rows)
        for place, row in enumerate(rows, start=top):
            for column, (called, matrix) in enumerate(row.items()):
                axes = figure.add_subplot(grid[place, column])
                image = _heat_map(axes, matrix, labels, limits=limits)
                axes.set_title(plot_style.literal(called), fontsize="medium")
                axes.set_xlabel(axis)
                axes.set_ylabel("" if column else axis)
        bar = figure.add_subplot(grid[top:bottom, -1])
        figure.colorbar(image, cax=bar, label=plot_style.literal(measure.name))
        top = bottom
    figure.suptitle(plot_style.literal(title))
    return figure


def _rows(measure: Measure, size: int) -> list[dict[str, np.ndarray]]:
    """Divides the entries of a measure among rows."""
    shape: arrays.Shapes = dict.fromkeys(measure.entries, ("labels", "labels"))
    read = arrays.read(measure.entries, shape, measure.name, {"labels": size})
    names = [name for name, matrix in read.items() if np.isfinite(matrix).any()]
    rows = [names[first : first + _COLUMNS] for first in range(0, len(names), _COLUMNS)]
    return [{name: read[name] for name in row} for row in rows]


def _extent(rows: Sequence[Mapping[str, np.ndarray]]) -> tuple[float, float]:
    """Finds the least and the greatest finite value of matrices."""
    values = np.concatenate([one.ravel() for row in rows for one in row.values()])
    values = values[np.isfinite(values)]
    return float(values.min()), float(values.max())


def _heat_map(
    axes: Axes,
    matrix: np.ndarray,
    labels: Sequence[str],
    *,
    limits: tuple[float, float],
) -> AxesImage:
    """Draws one matrix over hatching, which shows where a value is missing."""
    low, high = limits
    matrix = np.ma.masked_invalid(matrix)
    image = axes.imshow(matrix, cmap="viridis", vmin=low, vmax=high)
    axes.patch.set(hatch="////", edgecolor=plot_style.GREY)
    last = len(labels) - 1
    apart = -(-len(labels) // _MOST_TICKS)
    shown = [place for place in range(0, last, apart) if last - place >= apart]
    shown.append(last)
    called = [plot_style.literal(labels[place]) for place in shown]
    axes.set_yticks(shown, called)
    upright = max(map(len, called)) > 2
    axes.set_xticks(shown, called, rotation=90 if upright else 0)
    return image


def histograms(
    entries: Sequence[Values],
    *,
    x: str,
    title: str,
    bins: int | Sequence[float] = 60,
) -> Figure | None:
    """Draws histograms over each other, as filled steps on the same bins.

    Args:
      entries: what to draw, such as the weights that an arm has left.
      x: label of the horizontal axis.
      title: of the figure.
      bins: how many there are between the least and the greatest value of all, or
        their edges, rising; what lies outside of these counts but is not shown.

    Returns:
      The figure, in percent of the values of each entry; None without values.

    Raises:
      ValueError: for values that are not numbers in a row.
    """
    found = []
    for entry in entries:
        read = arrays.read(entry._asdict(), {"values": ("values",)}, entry.label)
        values = read.get("values", np.empty(0))
        found.append(entry._replace(values=values[np.isfinite(values)]))
    found = [entry for entry in found if len(entry.values)]
    if not found:
        return None
    edges = np.histogram_bin_edges(np.concatenate([e.values for e in found]), bins)
    called = [_with_threshold(entry) for entry in found]
    figure, axes = _one_panel(x, "values in the bin (%)", title, called)
    handles = []
    for entry, style in zip(found, plot_style.styles(len(found)), strict=True):
        share = 100 * np.histogram(entry.values, edges)[0] / len(entry.values)
        axes.stairs(share, edges, fill=True, color=style.color, alpha=0.18, linewidth=0)
        look = {"color": style.color, "linestyle": style.dash}
        handles.append(axes.stairs(share, edges, linewidth=1.4, **look))
        if _is_known(entry.threshold):
            for sign in (-1, 1):
                axes.axvline(sign * entry.threshold, linewidth=1.0, **look)
    axes.set_ylim(bottom=0)
    plot_style.legend_beside(axes, handles, called)
    return figure


def _with_threshold(entry: Values) -> str:
    """Adds to a label how many values there are, and what their threshold is."""
    label = f"{entry.label} (n = {len(entry.values):,})"
    if not _is_known(entry.threshold):
        return label
    return f"{label}\nlines at ± {entry.threshold:.3g}"


def _is_known(threshold: float | None) -> bool:
    """Says whether there is a threshold to draw."""
    return threshold is not None and bool(np.isfinite(threshold))


def scatter(
    groups: Sequence[Points], *, x: str, y: str, title: str, note: str = ""
) -> Figure | None:
    """Draws groups of points, each with a marker and colour of its own.

    Args:
      groups: what to draw.
      x: label of the horizontal axis.
      y: label of the vertical axis.
      title: of the figure.
      note: under the title, such as a rank correlation.

    Returns:
      The figure, or None without points.

    Raises:
      ValueError: for fields of a group that are not equally long.
    """
    fields: arrays.Shapes = dict.fromkeys(("x", "y", "x_sd", "y_sd"), ("points",))
    found = []
    for group in groups:
        table = pd.DataFrame(arrays.read(group._asdict(), fields, group.label))
        table = table.reindex(columns=list(fields))
        table = table[np.isfinite(table[["x", "y"]]).all(axis=1)]
        if len(table):
            found.append((f"{group.label} (n = {len(table)})", table))
    if not found:
        return None
    called = [label for label, _ in found]
    title = f"{title}\n{note}" if note else title
    figure, axes = _one_panel(x, y, title, called)
    handles = []
    for (_, table), style in zip(found, plot_style.styles(len(found)), strict=True):
        bars = {name: table[f"{name}_sd"] for name in ("x", "y")}
        drawn = axes.errorbar(
            *(table["x"], table["y"]),
            **{f"{name}err": sd for name, sd in bars.items() if sd.notna().any()},
            color=style.color,
            fmt=style.marker,
            markersize=7,
            markeredgecolor="white",
            markeredgewidth=0.5,
            elinewidth=1.0,
            capsize=2.0,
        )
        handles.append(drawn)
    plot_style.legend_beside(axes, handles, called)
    return figure


def _one_panel(
    x: str, y: str, title: str, called: Sequence[str]
) -> tuple[Figure, Axes]:
    """Makes a figure of one panel, with room for a legend beside it."""
    beside = plot_style.beside(called)
    figure, (axes,) = plot_style.panels(
        [""], x=x, y=y, title=title, columns=1, beside=beside
    )
    return figure, axes
