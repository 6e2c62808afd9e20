"""Spectra: figures of the eigenvalues of the Hessian."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from experiments.studies.gradient_flow.published import LABELS
from jaxsparse.reports import plot_style

Found = dict[str, Any]
_DASHES = {False: "-", True: (0, (4, 1.5))}  # by whether masks were just updated


def hessian(part: Found, title: str) -> Figure | None:
    """Draws how many eigenvalues are beyond each value, on either side of 0.

    Args:
      part: by variant, "states", each with "seed", "step", "moment" and "eigenvalues".
      title: what was trained.

    Returns:
      The figure: one panel for each variant, for the first seed; dark states are early,
      and states just after a mask update dashed.
    """
    states = {
        name: [
            state
            for state in entry["states"]
            if not state["seed"] and "eigenvalues" in state
        ]
        for name, entry in part.items()
    }
    states = {name: mine for name, mine in states.items() if mine}
    if not states:
        return None
    steps = sorted({state["step"] for mine in states.values() for state in mine})
    looks = dict(zip(steps, plot_style.shades(len(steps)), strict=True))
    figure, panels = plot_style.panels(
        [LABELS[name] for name in states],
        x="eigenvalue",
        y="eigenvalues as far from 0",
        title=f"{title}: spectrum of the Hessian, one seed",
    )
    ends = []
    for axes, mine in zip(panels, states.values(), strict=True):
        axes.axvline(0, color=plot_style.GREY, linewidth=0.9, zorder=1)
        for state in mine:
            dash = _DASHES[state["moment"] == "after"]
            look = {"color": looks[state["step"]].color, "linestyle": dash}
            for x, count in tails(np.asarray(state["eigenvalues"], float)):
                axes.plot(x, count, linewidth=1.4, **look)
                ends += [x.min(), x.max()]
    if ends:
        _symlog(panels[0], np.asarray(ends))
        panels[0].set_yscale("log")
    handles = {
        f"step {step:,}": Line2D([], [], color=look.color, linewidth=2)
        for step, look in looks.items()
    }
    moments = {state["moment"] for mine in states.values() for state in mine}
    for moment in sorted(moments - {""}, reverse=True):
        line = Line2D([], [], color="black", linestyle=_DASHES[moment == "after"])
        handles[f"{moment} a mask update"] = line
    columns = int(figure.get_figwidth() // 2.2)  # inches
    plot_style.legend_below(figure, handles, columns=columns)
    return figure


def tails(eigenvalues: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Counts the eigenvalues beyond each of them, at about 200 of them a side.

    Args:
      eigenvalues: all eigenvalues, in any order.

    Yields:
      Eigenvalues of one side, and how many are at least as far from 0; first of the
      negative ones. Those below the rounding error of float32 are left out.
    """
    size = np.abs(eigenvalues)
    rounding = np.finfo(np.float32).eps * math.sqrt(size.size) * size.max()
    for sign in (-1, 1):
        far = np.sort(size[sign * eigenvalues > rounding])[::-1]
        if len(far):
            counts = np.unique(np.geomspace(1, len(far), 200).round().astype(int))
            yield sign * far[counts - 1], counts


def _symlog(axes: Axes, values: np.ndarray) -> None:
    """Makes the x axis logarithmic on either side of 0, as far as values go."""
    powers = np.log10(np.abs(values))
    low, high = math.floor(powers.min()), math.ceil(powers.max())
    axes.set_xscale("symlog", linthresh=10.0**low, linscale=1.0)
    apart = max(1, math.ceil((high - low) / 3))
    # Labels near 0 would overlap that of 0.
    ticks = 10.0 ** np.arange(high, min(low + apart, high) - 1, -apart)
    axes.xaxis.set_major_locator(FixedLocator([*-ticks, 0, *ticks[::-1]]))
    axes.xaxis.set_minor_locator(NullLocator())
