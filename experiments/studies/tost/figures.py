"""Figures: gains of every technique, and training with it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from experiments.studies import tables
from experiments.studies.tost import claims
from experiments.studies.tost.variants import LABELS, MASK_LABELS, TECHNIQUES
from jaxsparse.reports import plot_curves, plot_style

Found = dict[str, Any]
LARGE = 20.0  # points; with larger gains the axis is logarithmic
CAPTIONS = {
    "gains": (
        "Gain of every technique: points are seeds, bars the mean and one sample "
        "standard deviation to either side. If a gain is beyond 20 points, the axis is "
        "logarithmic beyond 1."
    ),
    "training": (
        "Test accuracy during training, at the highest sparsity, from the first "
        "evaluation after step 0; ghosts are removed after half of the updates."
    ),
}


def _names(entry: Mapping[str, Any]) -> list[str]:
    """Lists the single techniques and all of them, as far as they are measured."""
    return [name for name in (*TECHNIQUES, "all") if name in entry]


def gains(found: Found, title: str) -> Figure | None:
    """Draws the gains of every seed: a panel a mask, a row a technique.

    Args:
      found: from `variants.arrange`.
      title: what was trained.
    """
    rows = [
        (cell.mask, cell.sparsity, name, value)
        for cell, entry in found["cells"].items()
        if "none" in entry
        for name in _names(entry)
        for value in claims.gain(entry, name)
    ]
    if not rows:
        return None
    table = pd.DataFrame(rows, columns=["mask", "sparsity", "technique", "gain"])
    order = [name for name in (*TECHNIQUES, "all") if name in set(table["technique"])]
    places = sorted(table["sparsity"].unique())
    looks = dict(zip(places, plot_style.shades(len(places)), strict=True))
    masks = list(table["mask"].unique())
    seeds = table.groupby(["mask", "sparsity", "technique"]).size().max()
    labels = {at: f"{at} %" if at else "dense" for at in places}
    figure, panels = plot_style.panels(
        [MASK_LABELS[mask] for mask in masks],
        x="",
        y="",
        title=f"{title}: gains of {seeds} seeds, mean ± s.d.",
        beside=plot_style.legend_width(list(labels.values())),
    )
    for axes, mask in zip(panels, masks, strict=True):
        mine = table.loc[table["mask"] == mask]
        own = sorted(mine["sparsity"].unique())
        look = {"x": "gain", "y": "technique", "hue": "sparsity", "ax": axes}
        look |= {"order": order, "hue_order": own, "legend": False}
        look |= {"palette": [looks[at].color for at in own]}
        sns.stripplot(mine, dodge=True, jitter=False, size=3, alpha=0.6, **look)
        for dots in axes.collections:  # below the bars, which would hide them
            dots.set_offsets(dots.get_offsets() + [0, 0.09])
        sns.pointplot(
            mine,
            dodge=0.8 - 0.8 / len(own) if len(own) > 1 else False,
            linestyle="none",
            errorbar="sd",
            capsize=0.1,
            markers=[looks[at].marker for at in own],
            markersize=5,
            err_kws={"linewidth": 1.5},
            **look,
        )
        axes.axvline(0, color=plot_style.GREY, linewidth=0.8, zorder=1)
        axes.set_yticks(range(len(order)), [LABELS[name] for name in order])
        axes.set(xlabel="", ylabel="")
    if table["gain"].abs().max() > LARGE:
        for axes in panels:
            axes.set_xscale("symlog", linthresh=1.0)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    figure.supxlabel("gain over no technique (points of test accuracy)", size="medium")
    handles = {
        labels[at]: Line2D([], [], color=look.color, marker=look.marker)
        for at, look in looks.items()
    }
    plot_style.legend_right(figure, handles, heading="sparsity")
    return figure


def training(found: Found, title: str) -> Figure | None:
    """Draws accuracies by update: a panel a mask, a line a variant.

    Args:
      found: from `variants.arrange`.
      title: what was trained.
    """
    highest = max(cell.sparsity for cell in found["cells"])
    parts = [
        tables.lines(*entry["curve"], panel=MASK_LABELS[cell.mask], label=LABELS[name])
        for cell, entries in found["cells"].items()
        for name, entry in entries.items()
        if cell.sparsity == highest and name in ("none", "all", *TECHNIQUES)
    ]
    table = tables.concat(parts, plot_curves.COLUMNS)
    return plot_curves.curves(
        table[table["x"] > 0],  # untrained networks would flatten the curves
        x="updates",
        y="test accuracy (%)",
        title=f"{title}, {highest} %",
    )
