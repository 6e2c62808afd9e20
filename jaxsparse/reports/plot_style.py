"""Drawing: the look that all figures of a report share.

Colours are those of Okabe and Ito (colour-blind safe), and every line also has a
marker and a dash of its own, so that a figure survives a greyscale printer. What
the lines are about is the business of `figures`.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    NullFormatter,
)

from jaxsparse.reports import formatting


class Style(NamedTuple):
    """How a line looks.

    Attributes:
      color: any colour of matplotlib.
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
)
GREY = "#777777"
STEP = "step (optimiser updates)"


class Line(NamedTuple):
    """One line of a figure, a mean with its band.

    Attributes:
      label: for the legend.
      style: how it looks.
      points: data frame with the columns x, mean and sd; sd may be NaN.
    """

    label: str
    style: Style
    points: pd.DataFrame


def shades(count: int) -> list[Style]:
    """Makes styles for things that have an order, from dark to light."""
    colors = mpl.colormaps["viridis"](np.linspace(0.0, 0.82, max(count, 1)))
    return [
        Style(color, STYLES[i % len(STYLES)].marker, STYLES[i % len(STYLES)].dash)
        for i, color in enumerate(colors[:count])
    ]


def styles(count: int) -> list[Style]:
    """Makes styles for things that have no order; up to 49 of them differ."""
    made = []
    for place in range(count):
        turn, color = divmod(place, len(STYLES))
        other = STYLES[(place + turn) % len(STYLES)]
        made.append(Style(STYLES[color].color, other.marker, other.dash))
    return made


def means(x: np.ndarray, values: np.ndarray) -> pd.DataFrame:
    """Averages over seeds.

    Args:
      x: where, [m].
      values: by seed, [r m]; NaN where there is none.

    Returns:
      The points of a `Line`; one seed has no deviation.
    """
    table = pd.DataFrame(values)
    return pd.DataFrame({"x": x, "mean": table.mean(), "sd": table.std()})


def draw(
    axes: Axes, line: Line, *, every: int | tuple[int, int] = 1, front: bool = False
) -> Line2D:
    """Draws a line with its markers and its band of one deviation.

    Args:
      axes: where.
      line: what; a band appears where it has a deviation.
      every: points from one marker to the next, or the first and that.
      front: whether to draw it over the others.

    Returns:
      The line, for a legend.
    """
    color, marker, dash = line.style
    points = line.points.sort_values("x")
    x, mean, sd = (points[name].to_numpy(float) for name in ("x", "mean", "sd"))
    height = 3.0 if front else 2.5
    axes.fill_between(
        x, mean - sd, mean + sd, color=color, alpha=0.16, linewidth=0, zorder=height - 1
    )
    (drawn,) = axes.plot(
        x,
        mean,
        color=color,
        linestyle=dash,
        linewidth=1.8 if front else 1.4,
        marker=marker,
        markersize=4.5,
        markeredgecolor="white",
        markeredgewidth=0.5,
        markevery=every,
        zorder=height,
    )
    return drawn


def percent_ticks(
    axes: Axes,
    values: np.ndarray,
    *,
    write: Callable[[float], str] = formatting.percent,
) -> None:
    """Labels a logarithmic x axis of percentages at values that occur.

    Args:
      axes: whose x axis, already logarithmic.
      values: the percentages; those too near to a labelled one only get a tick.
      write: makes the label of a percentage.
    """
    occurring = np.unique(values[values > 0])[::-1]
    if not len(occurring):
        return
    least = np.log10(occurring[0] / occurring[-1]) / 8
    major = [occurring[0]]
    for value in occurring[1:]:
        if np.log10(major[-1] / value) >= least:
            major.append(value)
    axes.xaxis.set_major_locator(FixedLocator(major))
    axes.xaxis.set_major_formatter(FixedFormatter([write(x) for x in major]))
    axes.xaxis.set_minor_locator(FixedLocator(occurring))
    axes.xaxis.set_minor_formatter(NullFormatter())


def decade_ticks(axes: Axes) -> None:
    """Labels a logarithmic y axis of percentages at 1, 2, 5, 10, 20, ..."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def mark_empty(axes: Axes, at: pd.Index, *, color: Any) -> None:
    """Puts crosses at the foot of the axes where a layer has no weight left."""
    if len(at):
        foot = axes.get_xaxis_transform()
        zeros = np.zeros(len(at))
        axes.plot(at, zeros, "x", color=color, transform=foot, clip_on=False)


def extent(lines: Sequence[Line], *, lowest: float = 0.0) -> tuple[float, float]:
    """Finds the vertical extent of lines and their bands.

    Args:
      lines: the lines.
      lowest: fraction in [0, 1) of the means that may lie below the extent.

    Returns:
      The least and greatest value; (nan, nan) where there is nothing to see.
    """
    points = [line.points.assign(sd=line.points["sd"].fillna(0)) for line in lines]
    means = np.concatenate([[], *(p["mean"] for p in points)])
    tops = np.concatenate([[], *(p["mean"] + p["sd"] for p in points)])
    bottoms = np.concatenate([[], *(p["mean"] - p["sd"] for p in points)])
    if not np.isfinite(means).any():
        return float("nan"), float("nan")
    low = np.nanquantile(means, lowest) if lowest else np.nanmin(bottoms)
    return float(low), float(np.nanmax(tops))


def limit(axes: Axes, low: float, high: float) -> None:
    """Sets the limits of a linear y axis, with some air around them."""
    if np.isfinite([low, high]).all():
        air = 0.05 * (high - low) or 0.01 * abs(high) or 1.0
        axes.set_ylim(low - air, high + air)


def limit_positive(axes: Axes, lines: Sequence[Line]) -> None:
    """Sets the limits of a logarithmic y axis by the means, as bands may pass 0."""
    means = np.concatenate([[], *(line.points["mean"] for line in lines)])
    means = means[np.isfinite(means) & (means > 0)]
    if len(means):
        axes.set_ylim(means.min() / 1.5, means.max() * 1.5)


def finish(axes: Axes, *, x: str, y: str) -> None:
    """Labels both axes and gives them the common look."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend_beside(
    axes: Axes, handles: Sequence[Any], labels: Sequence[str], *, heading: str = ""
) -> None:
    """Puts a legend to the right of a panel, for which a figure makes room."""
    axes.legend(
        handles,
        [literal(label) for label in labels],
        title=heading or None,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0,
        frameon=False,
        alignment="left",
    )


def beside(labels: Sequence[str]) -> float:
    """Returns about how wide a legend of these labels is, in inches."""
    lines = [line for label in labels for line in label.split("\n")]
    return 0.7 + 0.08 * max(map(len, lines), default=0)


def grid(
    rows: int, *, x: str, y: Sequence[str], share: str, title: str
) -> tuple[Figure, np.ndarray]:
    """Makes a figure of rows of panels, with room for a legend beside each row.

    Args:
      rows: how many.
      x: label of all horizontal axes, written once a column.
      y: label of the vertical axes of each column.
      share: which panels have one vertical axis: "all", or those of a "col".
      title: of the figure.

    Returns:
      The figure, and the panels by row and column.
    """
    size = (3.2 + 4.4 * len(y), 1.2 + 3.3 * rows)
    figure = Figure(figsize=size, layout="constrained")
    made = figure.subplots(rows, len(y), squeeze=False, sharex="col", sharey=share)
    for (row, column), axes in np.ndenumerate(made):
        finish(axes, x=x if row == rows - 1 else "", y=y[column])
    figure.suptitle(literal(title))
    return figure, made


def panels(
    titles: Sequence[str],
    *,
    x: str,
    y: str | Sequence[str],
    title: str,
    columns: int | None = None,
    beside: float = 0.0,
    share_y: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Makes a figure of panels that share their horizontal axis.

    Args:
      titles: one a panel.
      x: label of all horizontal axes, written once a column.
      y: label of all vertical axes, written once a row; or one a panel.
      title: of the figure.
      columns: panels in a row; None for at most three, and two of up to four.
      beside: room for a legend to the right, inches.
      share_y: whether panels share the vertical axis too.

    Returns:
      The figure, and the panels in the order of their titles.
    """
    if columns is None:
        columns = 3 if len(titles) > 4 else min(len(titles), 2)
    rows = -(-len(titles) // columns)
    size = (max(7.5, 1.5 + 3.5 * columns + beside), 1.6 + 2.6 * rows)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=share_y)
    made = list(grid.flat)
    for place, (axes, called) in enumerate(zip(made, titles, strict=False)):
        lowest = place + columns >= len(titles)
        axes.tick_params(labelbottom=lowest)
        axes.set_title(literal(called), fontsize="medium")
        label = ("" if place % columns else y) if isinstance(y, str) else y[place]
        finish(axes, x=x if lowest else "", y=label)
    for axes in made[len(titles) :]:
        axes.remove()
    figure.suptitle(literal(title))
    return figure, made[: len(titles)]


def literal(label: str) -> str:
    """Keeps matplotlib from reading dollar signs as mathematics."""
    return label.replace("$", r"\$")


def render(figure: Figure, *, file_format: str) -> bytes:
    """Renders a figure; equal figures give equal bytes.

    Args:
      figure: what to render.
      file_format: "png" (150 dots an inch) or "svg".

    Returns:
      The content of the file.
    """
    buffer = io.BytesIO()
    metadata = {"Date": None} if file_format == "svg" else {"Software": None}
    with mpl.rc_context({"svg.hashsalt": "jaxsparse"}):
        figure.savefig(buffer, format=file_format, dpi=150, metadata=metadata)
    return buffer.getvalue()
