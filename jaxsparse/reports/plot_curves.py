"""Study lines: curves and segments of several arms, in panels side by side.

As in `figures`, each function returns a new `matplotlib.figure.Figure`, made without
global state; None if there is nothing to draw. They take plain numbers: arrays, or
lists in which None is NaN. Lines are means over seeds. What is not finite is left out,
and so are lines and panels of which nothing is left.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter

from jaxsparse.reports import arrays, plot_style
from jaxsparse.reports.plot_style import Style

Scale = Literal["linear", "log", "remaining", "steps"]
Spread = Literal["sd", "range", "none"]

_SD = "mean ± s.d. over n seeds"
_BARS = {"sd": _SD, "range": "mean, and least to greatest, of n seeds"}
_MOST_MARKERS = 15  # on a line, about; bars are as many
_DASHES = ("-", (0, (6, 3)), (0, (2, 2)))  # of thresholds, by their labels


class Curve(NamedTuple):
    """One line of a panel.

    Attributes:
      label: for the legend; lines of one label look alike in all panels.
      x: where, [m].
      values: by seed, [r m].
    """

    label: str
    x: Any
    values: Any


class Panel(NamedTuple):
    """One panel of several.

    Attributes:
      title: above it.
      lines: what it shows.
      threshold: where to draw a thin horizontal line, and its label for the legend,
        such as (2.0, "stable below 2 %"); None for none.
    """

    title: str
    lines: Sequence[Curve]
    threshold: tuple[float, str] | None = None


class _Line(NamedTuple):
    """A `Curve` averaged over seeds: points with x, mean, sd, least and greatest."""

    label: str
    seeds: int
    points: pd.DataFrame


Draw = Callable[[Axes, pd.DataFrame, Style, int], Line2D]


def curves(
    panels: Sequence[Panel],
    *,
    x: str,
    y: str | Sequence[str],
    title: str,
    scale: Scale = "linear",
    spread: Spread = "sd",
    ordered: bool = False,
) -> Figure | None:
    """Draws lines with bars, in panels side by side with one legend.

    Args:
      panels: what to draw; at most three stand in a row, and four in a square.
      x: label of all horizontal axes.
      y: label of all vertical axes, which are then one; or a label for each panel,
        which then has an axis of its own.
      title: of the figure, to which it adds what the bars are.
      scale: of the horizontal axes: "log", labelled at values that occur; "remaining",
        for weights remaining in percent, logarithmic and from dense on the left to
        sparse; "steps", for moments of training, logarithmic but for 0, which it shows.
      spread: what bars are: "sd", one sample deviation to either side of the mean, or
        "range", from the least value to the greatest. One seed has none. "none" is for
        what is not of seeds, of which the figure then says nothing.
      ordered: whether labels have an order, shown by shades from dark to light.

    Returns:
      The figure, or None for panels without lines.

    Raises:
      ValueError: for values of another shape than seeds by x, for labels that are not
        one a panel, and for x that the scale does not have.
    """

    def draw(axes: Axes, points: pd.DataFrame, style: Style, turn: int) -> Line2D:
        every = max(1, len(points) // _MOST_MARKERS)
        # Lines of many points take turns, so that their bars lie apart.
        every = (turn % every, every)
        if spread != "none":
            _bars(axes, points, style, spread=spread, every=every)
        line = plot_style.Line("", style, points.assign(sd=np.nan))
        return plot_style.draw(axes, line, every=every)

    counted = spread != "none"
    title = f"{title}: {_BARS[spread]}" if counted else title
    return _figure(
        *(panels, draw, x, y, title), ordered=ordered, scale=scale, counted=counted
    )


def segments(
    panels: Sequence[Panel],
    *,
    title: str,
    x: str = "from one network, at 0, to the other, at 1",
    y: str | Sequence[str] = "error (%)",
    ordered: bool = False,
) -> Figure | None:
    """Draws lines with bands along segments between networks, whose ends it marks.

    Args:
      panels: what to draw; x of a line is the place on the segment.
      title: of the figure, to which it adds what the bands are: one sample deviation
        to either side of the mean.
      x: label of all horizontal axes.
      y: as of `curves`.
      ordered: as of `curves`.

    Returns:
      The figure, or None for panels without lines.

    Raises:
      ValueError: as `curves`.
    """

    def draw(axes: Axes, points: pd.DataFrame, style: Style, turn: int) -> Line2D:
        every = max(1, len(points) // 8)
        line = plot_style.Line("", style, points)
        return plot_style.draw(axes, line, every=(turn % every, every))

    figure = _figure(panels, draw, x, y, f"{title}: {_SD}", ordered=ordered)
    for axes in figure.axes if figure else ():
        for end in (0, 1):
            axes.axvline(end, color=plot_style.GREY, linewidth=0.9, zorder=1)
    return figure


def _figure(
    panels: Sequence[Panel],
    draw: Draw,
    x: str,
    y: str | Sequence[str],
    title: str,
    *,
    ordered: bool,
    scale: Scale = "linear",
    counted: bool = True,
) -> Figure | None:
    """Draws the lines of all panels, thresholds, and a legend beside the first row."""
    shared = isinstance(y, str)
    if not shared and len(y) != len(panels):
        raise ValueError(
            f"y: {len(y)} labels; wanted {len(panels)}, one a panel; add or drop some"
        )
    read = [_averaged(panel) for panel in panels]
    shown = [place for place, lines in enumerate(read) if lines]
    if not shown:
        return None
    lines = [line for lines in read for line in lines]
    counts = _seeds(lines) if counted else {line.label: line.label for line in lines}
    styles = (
        plot_style.shades(len(counts)) if ordered else plot_style.styles(len(counts))
    )
    marks = dict.fromkeys(label for i in shown for _, label in _threshold(panels[i]))
    columns = 2 if len(shown) == 4 else min(len(shown), 3)
    figure, made = plot_style.panels(
        [panels[place].title for place in shown],
        x=x,
        y=y if shared else [y[place] for place in shown],
        title=title,
        columns=columns,
        beside=plot_style.beside([*counts.values(), *marks]),
        share_y=shared,
    )
    handles: dict[str, Any] = dict.fromkeys([*counts, *marks])
    for axes, place in zip(made, shown, strict=True):
        for line in read[place]:
            turn = list(counts).index(line.label)
            handles[line.label] = draw(axes, line.points, styles[turn], turn)
        for value, label in _threshold(panels[place]):
            dash = _DASHES[list(marks).index(label) % len(_DASHES)]
            look = {"color": plot_style.GREY, "linestyle": dash, "linewidth": 1.2}
            handles[label] = axes.axhline(value, zorder=1, **look)
    occurring = [line.points["x"] for lines in read for line in lines]
    _rescale(made[0], scale, np.unique(np.concatenate(occurring)))
    called = [*counts.values(), *marks]
    plot_style.legend_beside(made[columns - 1], list(handles.values()), called)
    return figure


def _averaged(panel: Panel) -> list[_Line]:
    """Averages the lines of a panel over seeds; empty ones are left out."""
    shapes: arrays.Shapes = {"x": ("points",), "values": ("seeds", "points")}
    made = []
    for line in panel.lines:
        where = ", ".join(filter(None, (panel.title, line.label)))
        read = arrays.read(line._asdict(), shapes, where)
        if len(read) < len(shapes):
            continue
        values = pd.DataFrame(
            np.where(np.isfinite(read["values"]), read["values"], np.nan)
        )
        points = plot_style.means(read["x"], values.to_numpy())
        points = points.assign(least=values.min(), greatest=values.max())
        points = points[np.isfinite(points[["x", "mean"]]).all(axis=1)]
        if len(points):
            seeds = int(values.notna().any(axis=1).sum())
            made.append(_Line(line.label, seeds, points.sort_values("x")))
    return made


def _threshold(panel: Panel) -> list[tuple[float, str]]:
    """Returns the threshold of a panel, if there is one."""
    known = panel.threshold is not None and np.isfinite(panel.threshold[0])
    return [panel.threshold] if known else []


def _seeds(lines: Sequence[_Line]) -> dict[str, str]:
    """Adds to each label how many seeds there are, which may differ among panels."""
    made = {}
    for label in dict.fromkeys(line.label for line in lines):
        seeds = [line.seeds for line in lines if line.label == label]
        least, most = min(seeds), max(seeds)
        count = f"{least}" if least == most else f"{least} to {most}"
        made[label] = f"{label} (n = {count})"
    return made


def _bars(
    axes: Axes,
    points: pd.DataFrame,
    style: Style,
    *,
    spread: Spread,
    every: tuple[int, int],
) -> None:
    """Draws the spread over seeds where there are several."""
    several = points["sd"].notna()
    if not several.any():
        return
    if spread == "sd":
        bars = points[["sd", "sd"]].to_numpy().T
    else:
        apart = {"below": points["mean"] - points["least"]}
        apart["above"] = points["greatest"] - points["mean"]
        # Rounding may put the mean of equal values beside them.
        bars = pd.DataFrame(apart).clip(lower=0).where(several).to_numpy().T
    axes.errorbar(
        *(points["x"], points["mean"]),
        yerr=bars,
        errorevery=every,
        fmt="none",
        ecolor=style.color,
        elinewidth=1.0,
        capsize=2.0,
        alpha=0.7,
    )


def _rescale(axes: Axes, scale: Scale, occurring: np.ndarray) -> None:
    """Sets the scale of a horizontal axis, and of those that share it."""
    if scale == "linear":
        return
    least = 0 if scale == "steps" else np.finfo(float).tiny
    if occurring[0] < least:
        raise ValueError(
            f"x: {occurring[0]:g} on the scale {scale!r}; wanted "
            f"{'0 or more' if scale == 'steps' else 'more than 0'}; leave it out, or "
            "choose another scale"
        )
    positive = occurring[occurring > 0]
    if scale == "remaining":
        axes.set_xscale("log")
        plot_style.percent_ticks(axes, occurring)
        # Reversed: dense on the left.
        axes.set_xlim(occurring[-1] * 1.1, occurring[0] / 1.1)
        return
    if scale == "log":
        axes.set_xscale("log")
    elif len(positive):
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.6)
    # The scale alone would begin far to the left of 0.
    places = axes.xaxis.get_transform().transform(occurring)
    air = 0.05 * (places[-1] - places[0]) or 0.1
    limits = np.array([places[0] - air, places[-1] + air])
    axes.set_xlim(*axes.xaxis.get_transform().inverted().transform(limits))
    _label(axes, occurring, places)


def _label(axes: Axes, occurring: np.ndarray, places: np.ndarray) -> None:
    """Labels a horizontal axis at values that occur and have room for their labels."""
    called = [f"{value:,g}" for value in occurring]
    room = 0.03 * (1 + max(map(len, called))) * (places[-1] - places[0])
    shown = [0]
    for place in range(1, len(places)):
        if places[place] - places[shown[-1]] >= room:
            shown.append(place)
    axes.xaxis.set_major_locator(FixedLocator(occurring[shown]))
    axes.xaxis.set_major_formatter(FixedFormatter([called[place] for place in shown]))
    axes.xaxis.set_minor_locator(FixedLocator(occurring))
    axes.xaxis.set_minor_formatter(NullFormatter())
