"""Figures: matrices, histograms and points, as several studies draw them.

Each function returns a new `matplotlib.figure.Figure`, or None if no value is finite.
`plot_curves` draws lines.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxsparse.reports import plot_style

_MAX_TICKS = 9


def matrices(
    entries: Mapping[str, np.ndarray],
    *,
    labels: Sequence[str],
    axis: str,
    measure: str,
    limits: tuple[float, float],
    title: str,
) -> Figure | None:
    """Draws square matrices as heat maps with one color bar.

    Args:
      entries: matrices [m m] by their titles, at most four.
      labels: m names of rows and columns. If they would be too dense, only some are
        shown, always with the last.
      axis: what rows and columns are, such as "level".
      measure: label of the color bar.
      limits: values of the darkest and of the lightest color.
      title: title of the figure.
    """
    if not entries:
        return None
    columns = len(entries)
    size = (1.8 + 2.9 * columns, 4.0)
    figure, grid = plot_style.subplots(1, columns, size=size, title=title)
    for axes, (name, matrix) in zip(grid[0], entries.items(), strict=True):
        sns.heatmap(
            matrix, ax=axes, vmin=limits[0], vmax=limits[1], cmap="viridis", cbar=False
        )
        axes.set_aspect("equal")
        axes.grid(visible=False)
        axes.set_title(plot_style.literal(name), fontsize="medium")
        axes.set(xlabel=axis, ylabel=axis if axes is grid[0, 0] else "")
        _label(axes, labels)
    bar = figure.colorbar(grid[0, -1].collections[0], ax=list(grid[0]))
    bar.set_label(plot_style.literal(measure))
    return figure


def _label(axes: Axes, labels: Sequence[str]) -> None:
    """Labels rows and columns of a heat map."""
    last = len(labels) - 1
    step = -(-len(labels) // _MAX_TICKS)
    shown = [place for place in range(0, last, step) if last - place >= step]
    places = np.array([*shown, last])
    names = [plot_style.literal(labels[place]) for place in places]
    upright = max(map(len, names)) > 2
    axes.set_yticks(places + 0.5, names, rotation=0)
    axes.set_xticks(places + 0.5, names, rotation=90 if upright else 0)


def histograms(
    table: pd.DataFrame,
    *,
    x: str,
    title: str,
    thresholds: Mapping[str, float],
    bins: int = 60,
) -> Figure | None:
    """Draws histograms over each other, in percent of the values of each label.

    Args:
      table: one row for each bin of a finer histogram: `label`, `value` (its center)
        and `count`.
      x: label of the horizontal axis.
      title: title of the figure.
      thresholds: by label, the distance of two vertical lines from 0.
      bins: bins between the lowest and the highest value.
    """
    table = table.loc[table["count"] > 0]
    if table.empty:
        return None
    counts = table.groupby("label", sort=False)["count"].sum()
    looks = plot_style.styles(list(counts.index))
    labels = {
        label: f"{label} (n = {count:,})\nlines at ± {thresholds[label]:.3g}"
        for label, count in counts.items()
    }
    width = plot_style.legend_width(list(labels.values()))
    figure, (axes,) = plot_style.panels(
        [""], x=x, y="values in the bin (%)", title=title, beside=width
    )
    edges = np.histogram_bin_edges(table["value"], bins)
    handles = {}
    for label, look in looks.items():
        rows = table.loc[table["label"] == label]
        sns.histplot(
            rows,
            x="value",
            weights="count",
            stat="percent",
            bins=list(edges),
            element="step",
            color=look.color,
            linestyle=look.dash,
            alpha=0.18,
            ax=axes,
        )
        style = {"color": look.color, "linestyle": look.dash, "linewidth": 1.0}
        for sign in (-1, 1):
            line = axes.axvline(sign * thresholds[label], **style)
        handles[labels[label]] = line
    axes.set(xlabel=x, ylabel="values in the bin (%)")
    plot_style.legend_right(figure, handles)
    return figure


def scatter(
    table: pd.DataFrame, *, x: str, y: str, title: str, note: str = ""
) -> Figure | None:
    """Draws the mean and standard deviation of two measures over replicates.

    Args:
      table: one row for each point and replicate: `label` (a group with its own marker
        and color), `point` (its name), `x` and `y`.
      x: label of the horizontal axis.
      y: label of the vertical axis.
      title: title of the figure.
      note: below the title, such as a rank correlation.
    """
    if table.empty:
        return None
    groups = table.groupby(["label", "point"], sort=False)[["x", "y"]]
    means, sds = groups.mean(), groups.std().fillna(0)
    counts = means.groupby("label", sort=False).size()
    labels = {label: f"{label} (n = {count})" for label, count in counts.items()}
    figure, (axes,) = plot_style.panels(
        [""],
        x=x,
        y=y,
        title=f"{title}\n{note}" if note else title,
        beside=plot_style.legend_width(list(labels.values())),
    )
    handles = {}
    for label, look in plot_style.styles(list(labels)).items():
        mean, sd = means.loc[label], sds.loc[label]
        handles[labels[label]] = axes.errorbar(
            mean["x"],
            mean["y"],
            sd["y"],
            sd["x"],
            color=look.color,
            fmt=look.marker,
            markersize=7,
            markeredgecolor="white",
            markeredgewidth=0.5,
            elinewidth=1.0,
            capsize=2.0,
        )
    plot_style.legend_right(figure, handles)
    return figure
