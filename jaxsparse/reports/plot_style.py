"""Plot style: the look that all figures share.

The colors are those of Okabe and Ito, which are safe for color-blind readers. Every
line also has its own marker and dashes, so that a figure stays readable in grayscale.

Figures are made without `matplotlib.pyplot`, and therefore without global state.
seaborn draws the lines. It would average logarithms on a logarithmic axis, so the scale
of an axis is set after the lines are drawn.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

Error = Literal["band", "bars", "range", "none"]


class Style(NamedTuple):
    """The look of a line.

    Attributes:
      color: any color of matplotlib.
      marker: marker at the points; "" for none.
      dash: line style of matplotlib.
    """

    color: Any
    marker: str
    dash: Any


STYLES = (
    Style("#0072B2", "o", "-"),
    Style("#D55E00", "s", (0, (5, 1.5))),
    Style("#009E73", "^", (0, (5, 1.5, 1, 1.5))),
    Style("#CC79A7", "v", (0, (1, 1.2))),
    Style("#E69F00", "D", (0, (3, 1, 1, 1, 1, 1))),
    Style("#222222", "X", (0, (8, 2))),
    Style("#56B4E9", "P", (0, (2, 2))),
    Style("#8C6D31", "<", (0, (6, 1, 1, 1))),
    Style("#7A7A00", "*", (0, (4, 4))),
    Style("#7B4FA3", ">", (0, (1, 3))),
)
GREY = "#777777"
STEP = "step (optimizer updates)"
_MAX_MARKERS = 15  # about, on one line
_LOOK = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}


def shades(count: int) -> list[Style]:
    """Makes styles for labels that have an order, from dark to light.

    Args:
      count: number of styles, at least 0.
    """
    colors = mpl.colormaps["viridis"](np.linspace(0.0, 0.82, max(count, 1)))
    return [
        Style(tuple(color), *STYLES[place % len(STYLES)][1:])
        for place, color in enumerate(colors[:count])
    ]


def styles(labels: Sequence[str], *, ordered: bool = False) -> dict[str, Style]:
    """Chooses a style for each label.

    Args:
      labels: distinct labels of lines.
      ordered: whether the labels have an order, which is shown by shades from dark to
        light. Without an order, up to 100 styles differ.

    Returns:
      The styles by label.
    """
    if ordered:
        return dict(zip(labels, shades(len(labels)), strict=True))
    made = {}
    for place, label in enumerate(labels):
        turn, color = divmod(place, len(STYLES))
        other = STYLES[(place + turn) % len(STYLES)]
        made[label] = Style(STYLES[color].color, other.marker, other.dash)
    return made


def subplots(
    rows: int = 1,
    columns: int = 1,
    *,
    size: tuple[float | int, float | int],
    title: str,
    **shared: Any,
) -> tuple[Figure, np.ndarray]:
    """Makes a figure of panels with the common look.

    Args:
      rows: rows of panels.
      columns: columns of panels.
      size: width and height in inches.
      title: title of the figure.
      **shared: arguments of `Figure.subplots`, such as `sharex`.

    Returns:
      The figure, and its panels by row and column.
    """
    with sns.axes_style("ticks", _LOOK):
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, **shared)
    figure.suptitle(literal(title))
    return figure, panels


def panels(
    titles: Sequence[str],
    *,
    x: str,
    y: str,
    title: str,
    beside: float = 0.0,
    columns: int | None = None,
    share_y: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Makes a figure of panels that share their horizontal axis.

    Args:
      titles: one for each panel.
      x: label of all horizontal axes, written once a column.
      y: label of all vertical axes, written once a row.
      title: title of the figure.
      beside: width of a legend to the right, in inches.
      columns: panels in a row; None for at most three, and two of four.
      share_y: whether panels share the vertical axis too.

    Returns:
      The figure, and its panels in the order of their titles.
    """
    if columns is None:
        columns = 2 if len(titles) == 4 else min(len(titles), 3)
    rows = -(-len(titles) // columns)
    size = (max(7.5, 1.5 + 3.5 * columns + beside), 1.6 + 2.6 * rows)
    figure, grid = subplots(
        rows, columns, size=size, title=title, sharex=True, sharey=share_y
    )
    made = list(grid.flat)
    for place, (axes, name) in enumerate(zip(made, titles, strict=False)):
        lowest = place + columns >= len(titles)
        axes.tick_params(labelbottom=lowest)
        axes.set_title(literal(name), fontsize="medium")
        axes.set(xlabel=x if lowest else "", ylabel="" if place % columns else y)
    for axes in made[len(titles) :]:
        axes.remove()
    return figure, made[: len(titles)]


def draw_lines(
    axes: Axes,
    table: pd.DataFrame,
    looks: Mapping[str, Style],
    *,
    x: str,
    y: str,
    error: Error = "band",
    markers: int = _MAX_MARKERS,
) -> dict[str, Line2D]:
    """Draws the mean over replicates of each label, and its spread.

    Args:
      axes: a panel whose axes are still linear.
      table: one row for each point and replicate, with the column `label`; what is not
        finite is left out.
      looks: styles by label, in the order in which the lines are drawn.
      x: column of the horizontal positions; the labels of the axes are kept.
      y: column of the values.
      error: how the spread is shown: "band" or "bars" of one sample standard deviation
        to either side, "range" for bars from the lowest to the highest value, "none".
        A single replicate has no spread.
      markers: about how many markers and bars a line has at most. Lines take turns,
        so that those of neighboring lines do not coincide.

    Returns:
      The lines that have points, by label.
    """
    names = axes.get_xlabel(), axes.get_ylabel()
    drawn = {}
    bars = error in ("bars", "range")
    for turn, (label, style) in enumerate(looks.items()):
        points = table.loc[table["label"] == label, [x, y]].astype(float)
        points = points[np.isfinite(points).all(axis=1)]
        if points.empty:
            continue
        step = max(1, points[x].nunique() // markers)
        every = (turn % step, step)
        look = {"errorevery": every, "elinewidth": 1.0, "capsize": 2.0}
        place = len(axes.lines)
        sns.lineplot(
            points,
            x=x,
            y=y,
            ax=axes,
            color=style.color,
            marker=style.marker or None,
            linestyle=style.dash,
            linewidth=1.5,
            markersize=4.5,
            markeredgewidth=0.5,
            markevery=every,
            errorbar={"range": ("pi", 100), "none": None}.get(error, "sd"),
            err_style="bars" if bars else "band",
            err_kws=look if bars else {"alpha": 0.16, "linewidth": 0},
        )
        drawn[label] = axes.lines[place]  # caps of bars follow it
    axes.set(xlabel=names[0], ylabel=names[1])
    return drawn


def count_labels(table: pd.DataFrame, *, by: str) -> dict[str, str]:
    """Appends to each label how many replicates it has.

    Args:
      table: rows with the columns `label` and `replicate`.
      by: column, such as "level", within which replicates are counted.

    Returns:
      By label, text such as "ticket (n = 5)", or "ticket (n = 3 to 5)" if the count
      varies.
    """
    counts = table.groupby(["label", by], sort=False)["replicate"].nunique()
    counts = counts.groupby("label", sort=False).agg(["min", "max"])
    return {
        label: f"{label} (n = {least})"
        if least == most
        else f"{label} (n = {least} to {most})"
        for label, least, most in counts.itertuples()
    }


def legend_below(figure: Figure, lines: Mapping[str, Any], *, columns: int) -> None:
    """Puts a legend below the panels.

    Args:
      figure: a figure with constrained layout.
      lines: lines or other artists by label.
      columns: number of columns of the legend.
    """
    labels = [literal(label) for label in lines]
    place = {"loc": "outside lower center", "ncols": columns, "frameon": False}
    figure.legend([*lines.values()], labels, **place)


def legend_right(
    figure: Figure, lines: Mapping[str, Any], *, heading: str | None = None
) -> None:
    """Puts a legend to the right of the panels, in columns of at most 24 labels.

    Args:
      figure: a figure with constrained layout.
      lines: lines or other artists by label.
      heading: title of the legend; None for none.
    """
    labels = [literal(label) for label in lines]
    place = {"loc": "outside right center", "frameon": False, "title": heading}
    figure.legend([*lines.values()], labels, ncols=1 + len(lines) // 24, **place)


def legend_width(labels: Sequence[str]) -> float:
    """Returns the approximate width of a legend with these labels, in inches.

    Args:
      labels: the labels; each may have several lines.
    """
    lines = [line for label in labels for line in label.split("\n")]
    return 0.7 + 0.08 * max(map(len, lines), default=0)


def literal(label: str) -> str:
    """Escapes dollar signs, between which matplotlib would expect mathematics.

    Args:
      label: a text for a figure.
    """
    return label.replace("$", r"\$")


def render(figure: Figure, *, file_format: str) -> bytes:
    """Renders a figure; equal figures give equal bytes, and one layout in all formats.

    Args:
      figure: the figure.
      file_format: "png" (150 dots per inch) or "svg".

    Returns:
      The content of the file.
    """
    buffer = io.BytesIO()
    metadata = {"Date": None} if file_format == "svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": "jaxsparse"}):
        figure.savefig(buffer, format=file_format, dpi=150, metadata=metadata)
    # Panels stay where they are in other formats: finding their places takes as long as
    # drawing them.
    figure.set_layout_engine("none")
    return buffer.getvalue()
