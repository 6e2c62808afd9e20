"""Axis scales: limits and ticks of logarithmic and linear axes.

The scale of an axis is set after its lines are drawn; see `plot_style`.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    NullFormatter,
)

from jaxsparse.reports import formatting

Scale = Literal["linear", "log", "remaining", "steps"]
_MAX_MINOR_TICKS = 40  # more of them would merge into a bar


def scale_x(axes: Axes, scale: Scale, occurring: np.ndarray) -> None:
    """Sets the scale of a horizontal axis, and of those that share it.

    Args:
      axes: a panel.
      scale: "linear"; "log", labeled at values that occur; "remaining", for weights
        remaining in percent, logarithmic and from dense on the left to sparse; "steps",
        for steps of training, logarithmic but for 0, which it shows.
      occurring: the values that occur, sorted and distinct.

    Raises:
      ValueError: for values that the scale does not have.
    """
    if scale == "linear":
        return
    lowest = 0 if scale == "steps" else np.finfo(float).tiny
    if occurring[0] < lowest:
        expected = "0 or more" if scale == "steps" else "more than 0"
        raise ValueError(
            f"x: expected {expected} on the scale {scale!r}, got {occurring[0]:g}; "
            "leave the value out, or choose another scale"
        )
    if scale == "remaining":
        percent_ticks(axes, occurring)
        return
    positive = occurring[occurring > 0]
    if scale == "log":
        axes.set_xscale("log")
    elif len(positive):
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.6)
    # Without limits, the axis would begin far to the left of 0.
    places = axes.xaxis.get_transform().transform(occurring)
    margin = 0.05 * (places[-1] - places[0]) or 0.1
    limits = np.array([places[0] - margin, places[-1] + margin])
    axes.set_xlim(*axes.xaxis.get_transform().inverted().transform(limits))
    _label(axes, occurring, places)


def _label(axes: Axes, occurring: np.ndarray, places: np.ndarray) -> None:
    """Labels a horizontal axis at values that occur and have room for their labels."""
    labels = [f"{value:,g}" for value in occurring]
    room = 0.03 * (1 + max(map(len, labels))) * (places[-1] - places[0])
    shown = [0]
    for place in range(1, len(places)):
        if places[place] - places[shown[-1]] >= room:
            shown.append(place)
    axes.xaxis.set_major_locator(FixedLocator(occurring[shown]))
    axes.xaxis.set_major_formatter(FixedFormatter([labels[place] for place in shown]))
    few = len(occurring) <= _MAX_MINOR_TICKS
    axes.xaxis.set_minor_locator(FixedLocator(occurring if few else []))
    axes.xaxis.set_minor_formatter(NullFormatter())


def percent_ticks(
    axes: Axes,
    values: np.ndarray,
    *,
    write: Callable[[float], str] = formatting.percent,
) -> None:
    """Makes an x axis of percentages logarithmic, from dense on the left to sparse.

    Args:
      axes: panel whose x axis is changed.
      values: the percentages that occur; those near a labeled one only get a tick.
      write: formats a percentage.
    """
    axes.set_xscale("log")
    occurring = np.unique(values[values > 0])[::-1]
    if not len(occurring):
        return
    distance = np.log10(occurring[0] / occurring[-1]) / 8
    major = [occurring[0]]
    for value in occurring[1:]:
        if np.log10(major[-1] / value) >= distance:
            major.append(value)
    axes.xaxis.set_major_locator(FixedLocator(major))
    axes.xaxis.set_major_formatter(FixedFormatter([write(x) for x in major]))
    axes.xaxis.set_minor_locator(FixedLocator(occurring))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(occurring[0] * 1.1, occurring[-1] / 1.1)


def percent_axis(axes: Axes, means: np.ndarray) -> None:
    """Makes a y axis of percentages logarithmic, from the lowest mean to 100 %.

    Args:
      axes: the axes.
      means: means that are drawn, in percent; NaN where there is none. Only those above
        0 set the lower limit.
    """
    limit_positive(axes, means)
    axes.set_ylim(top=115)
    decade_ticks(axes)


def decade_ticks(axes: Axes) -> None:
    """Labels a logarithmic y axis of percentages at 1, 2, 5, 10, 20, ...

    Args:
      axes: the axes, whose y axis is logarithmic.
    """
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def mark_zeros(axes: Axes, at: pd.Index, *, color: Any) -> None:
    """Draws crosses at the foot of logarithmic axes, where a value is zero.

    Args:
      axes: the axes, whose y axis is logarithmic.
      at: x values at which the value is zero; may be empty.
      color: a matplotlib color.
    """
    if len(at):
        foot = axes.get_xaxis_transform()
        axes.plot(
            at, np.zeros(len(at)), "x", color=color, transform=foot, clip_on=False
        )


def limit(axes: Axes, low: float, high: float) -> None:
    """Sets the limits of a linear y axis, with a margin around them.

    Args:
      axes: the axes.
      low: lowest value that is drawn. If it or `high` is not finite, the limits stay as
        they are.
      high: highest value that is drawn.
    """
    if np.isfinite([low, high]).all():
        margin = 0.05 * (high - low) or 0.01 * abs(high) or 1.0
        axes.set_ylim(low - margin, high + margin)


def limit_positive(axes: Axes, means: np.ndarray) -> None:
    """Makes a y axis logarithmic, with limits around means; bands may reach 0.

    Args:
      axes: the axes.
      means: means that are drawn. Those that are not finite or not positive do not
        count; without others, only the scale is set.
    """
    axes.set_yscale("log")
    means = means[np.isfinite(means) & (means > 0)]
    if len(means):
        axes.set_ylim(means.min() / 1.5, means.max() * 1.5)
