"""Figures of the study: what every aid gains, and how networks learn with it."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from experiments.studies.tost import claims, labels, variants
from jaxsparse.reports import plot_curves, plot_style

Found = dict[str, Any]
WIDE = 20.0  # points beyond which gains are on a logarithmic axis
CAPTIONS = {
    "gains": (
        "What every aid gains over none: points are seeds, bars the mean and one "
        "sample standard deviation to either side of it. One mark goes with one "
        "sparsity. Where a gain is beyond 20 points, the axis is logarithmic beyond 1."
    ),
    "training": (
        "Test accuracy while networks train, at the highest sparsity, from the first "
        "evaluation after any training; ghosts are gone after half of the updates."
    ),
}


def gains(found: Found, title: str) -> Figure | None:
    """Draws gains as points: a panel a mask, a row an aid, a colour a sparsity."""
    cells = {c: entry for c, entry in found["cells"].items() if "none" in entry}
    masks = list(dict.fromkeys(cell.mask for cell in cells))
    places = sorted({cell.sparsity for cell in cells})
    listed = {aid for entry in cells.values() for aid in _shown(entry)}
    aids = [aid for aid in (*variants.AIDS, "all") if aid in listed]
    if not aids:
        return None
    styles = dict(zip(places, plot_style.shades(len(places)), strict=True))
    width = plot_style.beside([f"{at} %" for at in places])
    seeds = max(len(e["none"]["accuracy"]) for e in cells.values())
    figure, panels = plot_style.panels(
        [labels.MASKS[mask] for mask in masks],
        x="gain over no aid (points of test accuracy)",
        y="",
        title=f"{title}: gains of {seeds} seeds, mean ± s.d.",
        beside=width,
    )
    far = _furthest(cells) > WIDE
    for axes, mask in zip(panels, masks, strict=True):
        axes.axvline(0, color=plot_style.GREY, linewidth=0.8, zorder=1)
        own = [cell for cell in cells if cell.mask == mask]
        for turn, cell in enumerate(own):
            shift = 0.22 * (turn - (len(own) - 1) / 2)
            style = styles[cell.sparsity]
            for row, aid in enumerate(aids):
                if aid in cells[cell]:
                    _points(axes, claims.gain(cells[cell], aid), row + shift, style)
        if far:
            axes.set_xscale("symlog", linthresh=1.0)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.set_yticks(range(len(aids)), [labels.ARMS[aid] for aid in aids])
        axes.set_ylim(len(aids) - 0.5, -0.5)
    handles = [
        Line2D([], [], color=style.color, marker=style.marker, linewidth=1.5)
        for style in styles.values()
    ]
    called = ["dense" if at == 0 else f"{at} %" for at in places]
    top = panels[min(len(panels), 2) - 1]
    plot_style.legend_beside(top, handles, called, heading="sparsity")
    return figure


def _furthest(cells: Found) -> float:
    """Returns the largest gain or loss of any seed, in points."""
    gains = [
        claims.gain(entry, aid) for entry in cells.values() for aid in _shown(entry)
    ]
    return max(float(np.abs(gain).max()) for gain in gains)


def _shown(entry: Found) -> list[str]:
    return [aid for aid in (*variants.AIDS, "all") if aid in entry]


def _points(axes: Any, gain: np.ndarray, y: float, style: plot_style.Style) -> None:
    """Draws the mean with a bar, and seeds as small points just below it."""
    rows = np.full(len(gain), y + 0.09)
    axes.plot(gain, rows, ".", color=style.color, alpha=0.6, markersize=3, zorder=2)
    sd = gain.std(ddof=1) if len(gain) > 1 else None
    axes.errorbar(
        gain.mean(),
        y,
        xerr=sd,
        color=style.color,
        marker=style.marker,
        markersize=5,
        markeredgecolor="white",
        markeredgewidth=0.5,
        linewidth=1.5,
        capsize=2.5,
        zorder=3,
    )


def _trained(arm: Found) -> tuple[list[int], np.ndarray]:
    """Returns the curve of an arm without what untrained networks have."""
    steps, values = arm["curve"]
    later = [place for place, step in enumerate(steps) if step > 0]
    return [steps[place] for place in later], np.asarray(values)[:, later]


def training(found: Found, title: str) -> Figure | None:
    """Draws accuracies by update: a panel a mask, a line an arm."""
    highest = max(cell.sparsity for cell in found["cells"])
    panels = [
        plot_curves.Panel(
            labels.MASKS[cell.mask],
            [
                plot_curves.Curve(labels.ARMS[name], *_trained(arm))
                for name, arm in entry.items()
                if name in ("none", "all", *variants.AIDS)
            ],
        )
        for cell, entry in found["cells"].items()
        if cell.sparsity == highest
    ]
    return plot_curves.curves(
        panels,
        x="updates",
        y="test accuracy (%)",
        title=f"{title}, {highest} %",
    )
