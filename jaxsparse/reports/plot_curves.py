"""Plot curves: lines of several labels, in panels side by side with one legend.

Each function takes one data frame and returns a new `matplotlib.figure.Figure`, or None
if no value is finite. Lines are means over replicates.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxsparse.reports import axis_scales, plot_style
from jaxsparse.reports.axis_scales import Scale
from jaxsparse.reports.plot_style import Error

COLUMNS = ["panel", "label", "replicate", "x", "y"]
_SD = "mean ± s.d. over n seeds"
_SPREAD = {"band": _SD, "bars": _SD, "range": "mean, lowest and highest of n seeds"}


def curves(
    table: pd.DataFrame,
    *,
    x: str,
    y: str,
    title: str,
    scale: Scale = "linear",
    error: Error = "bars",
    ordered: bool = False,
    threshold: tuple[float, str] | None = None,
) -> Figure | None:
    """Draws lines over replicates, a panel for each value of the column `panel`.

    Args:
      table: one row for each point and replicate, with `COLUMNS`: title of the panel,
        label of the line, number of the replicate, and its position and value. Lines of
        one label look the same in all panels. Rows that are not finite are left out.
      x: label of all horizontal axes.
      y: label of all vertical axes.
      title: title of the figure, to which it adds what the spread is.
      scale: scale of the horizontal axes; see `axis_scales.scale_x`.
      error: how the spread over replicates is shown; see `plot_style.draw_lines`.
        "none" is for values without replicates, of which the legend then shows no
        count.
      ordered: whether labels have an order, shown by shades from dark to light.
      threshold: position and label of a thin horizontal line; None for none.

    Returns:
      The figure, or None without finite values. All panels have the same axes.

    Raises:
      ValueError: for positions that the scale does not have.
    """
    labels, look = (x, y, title), {"ordered": ordered, "error": error}
    return _draw(table, labels, scale=scale, threshold=threshold, **look)


def _draw(
    table: pd.DataFrame,
    labels: tuple[str, str, str],
    *,
    scale: Scale = "linear",
    error: Error = "bars",
    ordered: bool = False,
    threshold: tuple[float, str] | None = None,
    share_y: bool = True,
) -> Figure | None:
    """Draws the lines of `curves`.

    Args:
      table: as of `curves`.
      labels: labels of the horizontal axes and of the vertical axes, and the title.
      scale: scale of the horizontal axes.
      error: how the spread over replicates is shown.
      ordered: whether labels have an order.
      threshold: position and label of a thin horizontal line; None for none.
      share_y: whether all panels have the same vertical axis.
    """
    x, y, title = labels
    table = table[np.isfinite(table[["x", "y"]].astype(float)).all(axis=1)]
    if table.empty:
        return None
    names = list(table["panel"].unique())
    looks = plot_style.styles(list(table["label"].unique()), ordered=ordered)
    legend = _legend(table, counted=error != "none")
    entries = [*legend.values(), *([threshold[1]] if threshold else [])]
    figure, made = plot_style.panels(
        names,
        x=x,
        y=y,
        title=f"{title}: {_SPREAD[error]}" if error != "none" else title,
        beside=plot_style.legend_width(entries),
        share_y=share_y,
    )
    handles: dict[str, Any] = dict.fromkeys(legend.values())
    for axes, name in zip(made, names, strict=True):
        rows = table.loc[table["panel"] == name]
        lines = plot_style.draw_lines(axes, rows, looks, x="x", y="y", error=error)
        handles |= {legend[label]: line for label, line in lines.items()}
        if threshold is not None:
            look = {"color": plot_style.GREY, "linewidth": 1.2, "zorder": 1}
            handles[threshold[1]] = axes.axhline(threshold[0], **look)
    axis_scales.scale_x(made[0], scale, np.unique(table["x"].astype(float)))
    plot_style.legend_right(figure, handles)
    return figure


def interpolations(
    table: pd.DataFrame,
    *,
    title: str,
    x: str = "from one network, at 0, to the other, at 1",
    y: str = "error (%)",
    ordered: bool = False,
    share_y: bool = True,
) -> Figure | None:
    """Draws lines along the linear interpolation of networks, and marks its ends.

    Args:
      table: as of `curves`; `x` is the coefficient of the interpolation.
      title: title of the figure.
      x: label of all horizontal axes.
      y: label of all vertical axes.
      ordered: whether labels have an order, shown by shades from dark to light.
      share_y: whether all panels have the same vertical axis.

    Returns:
      The figure, or None without finite values.
    """
    look = {"ordered": ordered, "share_y": share_y}
    figure = _draw(table, (x, y, title), error="band", **look)
    for axes in figure.axes if figure else ():
        for end in (0, 1):
            axes.axvline(end, color=plot_style.GREY, linewidth=0.9, zorder=1)
    return figure


def _legend(table: pd.DataFrame, *, counted: bool) -> Mapping[str, str]:
    """Returns the text of each label in the legend, with its count of replicates."""
    if counted:
        return plot_style.count_labels(table, by="panel")
    return {label: label for label in table["label"].unique()}
