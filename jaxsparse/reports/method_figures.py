"""Method figures: the results of sparse training.

Each function returns a new `matplotlib.figure.Figure`. Means are over replicates; bars
and bands are one sample standard deviation to either side.
"""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxsparse.reports import (
    axis_scales,
    formatting,
    method_names,
    plot_style,
)
from jaxsparse.reports import methods as methods_lib

_COLOR = plot_style.STYLES[0].color
_WIDTH = 32  # characters in a line of a method's name, beside or below a figure
_SHORT = 16  # characters of a rotated name that need no extra height


def methods(table: pd.DataFrame, *, title: str) -> Figure:
    """Draws each method's test accuracy, one panel a sparsity; dense is a thin line.

    A smaller dense network is shown among the methods that end with about as many
    weights. No axis starts at 0, and each title contains where its axis starts.

    Args:
      table: from `methods.methods_table`.
      title: what was trained.

    Returns:
      The figure; panels from dense to sparse, methods by falling accuracy.
    """
    table = table.dropna(subset="test_accuracy")
    is_dense = is_dense_reference(table)
    lines, dots = table.loc[is_dense], table.loc[~is_dense]
    if dots.empty:
        lines, dots = dots, table
    groups = _groups(dots)
    heights = [len(rows) + 1.5 for rows in groups]
    # Each panel also has a title and the labels of its axis.
    height = max(2.5, 0.8 + sum(0.27 * height + 0.55 for height in heights))
    longest = max((len(name) for rows in groups for name in rows["name"]), default=0)
    figure, grid = plot_style.subplots(
        max(len(groups), 1),
        size=(6.5 + 0.08 * longest, height),
        title=f"{title}: mean ± s.d. over n replicates",
        height_ratios=heights or None,
    )
    handles = {}
    for axes, rows in zip(grid[:, 0], groups, strict=False):
        _dots(axes, rows)
        handles = _references(axes, lines)
        _limit(axes, pd.concat([rows, lines]))
        start = f"axis starts at {axes.get_xlim()[0]:.1f} %"
        axes.set_title(f"{_heading(rows)} ({start})", fontsize="medium")
    grid[-1, 0].set_xlabel("test accuracy (%)")
    if handles:
        plot_style.legend_below(figure, handles, columns=2)
    return figure


def is_dense_reference(table: pd.DataFrame) -> pd.Series:
    """Returns which rows are the dense network that the others are sparse forms of.

    Args:
      table: the table of `methods.methods_table`.
    """
    dense = table["label"].str.startswith(method_names.DENSE) & (table["sparsity"] == 0)
    return dense & (table["total"] == table["total"].max())


def _groups(dots: pd.DataFrame) -> list[pd.DataFrame]:
    """Divides rows among panels by sparsity, and sorts each by falling accuracy."""
    group = methods_lib.sparsity_groups(dots["sparsity"])
    is_small = (dots["sparsity"] == 0) & (dots["total"] < dots["total"].max())
    sparse = dots.loc[~is_small]
    kept = sparse["kept"].groupby(group.loc[sparse.index]).mean()
    for place in dots.index[is_small]:
        group[place] = np.log(kept / dots.loc[place, "kept"]).abs().idxmin()
    dots = dots.assign(is_small=is_small)
    dots = dots.sort_values("test_accuracy", ascending=False, kind="stable")
    return [rows.assign(name=_names(rows)) for _, rows in dots.groupby(group)]


def _names(rows: pd.DataFrame) -> list[str]:
    """Names each row of a panel, with the size of a smaller dense network."""
    names = method_names.distinct(rows["label"].tolist(), rows["run"].tolist())
    return [
        f"{name} ({kept:,.0f} weights)" if is_small else name
        for name, kept, is_small in zip(
            names, rows["kept"], rows["is_small"], strict=True
        )
    ]


def _heading(rows: pd.DataFrame) -> str:
    """Returns the sparsities of a panel."""
    values = rows.loc[~rows["is_small"], "sparsity"]
    low, high = (formatting.sparsity(value) for value in (values.min(), values.max()))
    return f"{low} % sparsity" if low == high else f"{low} to {high} % sparsity"


def _dots(axes: Axes, rows: pd.DataFrame) -> None:
    """Draws one panel: the first row at the top, its numbers on the right."""
    places = np.arange(len(rows))
    sd = rows["test_accuracy_sd"].fillna(0)
    look = {"fmt": "o", "color": _COLOR, "elinewidth": 1.2, "capsize": 3, "zorder": 3}
    axes.errorbar(rows["test_accuracy"], places, xerr=sd, **look)
    axes.set_yticks(places, [plot_style.literal(name) for name in rows["name"]])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    right = axes.get_yaxis_transform()
    numbers = zip(formatting.means(rows, "test_accuracy"), rows["n"], strict=True)
    for place, (mean, n) in enumerate(numbers):
        words = f"{mean} (n = {n})"
        axes.text(1.02, place, words, transform=right, va="center", fontsize="small")


def _references(axes: Axes, lines: pd.DataFrame) -> dict[str, Line2D]:
    """Draws dense networks as thin vertical lines, and returns them by label."""
    names = method_names.distinct(lines["label"].tolist(), lines["run"].tolist())
    drawn = {}
    for place, (name, row) in enumerate(zip(names, lines.itertuples(), strict=True)):
        sd = 0 if np.isnan(row.test_accuracy_sd) else row.test_accuracy_sd
        low, high = row.test_accuracy - sd, row.test_accuracy + sd
        axes.axvspan(low, high, color=plot_style.GREY, alpha=0.15, linewidth=0)
        dash = plot_style.STYLES[(place + 1) % len(plot_style.STYLES)].dash
        look = {"color": plot_style.GREY, "linewidth": 0.9, "linestyle": dash}
        label = f"{name.replace('dense', 'dense network', 1)} (n = {row.n})"
        drawn[label] = axes.axvline(row.test_accuracy, **look)
    return drawn


def _limit(axes: Axes, rows: pd.DataFrame) -> None:
    """Sets the limits of accuracy, with a margin around what is drawn."""
    sd = rows["test_accuracy_sd"].fillna(0)
    low = (rows["test_accuracy"] - sd).min()
    high = (rows["test_accuracy"] + sd).max()
    margin = 0.05 * (high - low) or 0.01 * abs(high) or 1.0
    axes.set_xlim(low - margin, high + margin)


def by_sparsity(table: pd.DataFrame, dense: pd.DataFrame, *, title: str) -> Figure:
    """Draws test accuracy against sparsity, one line for each method.

    Args:
      table: from `methods.sparsities_table`, of sparse runs and lottery-ticket runs.
      dense: rows of `methods.methods_table` of dense networks, thin lines across.
      title: what was trained.

    Returns:
      The figure; the axis is logarithmic in the weights that remain, dense on the left.
    """
    table = table.loc[table["sparsity"] < 100].dropna(subset="test_accuracy")
    table = table.assign(
        remaining=100 - table["sparsity"],
        replicate=table.groupby(["label", "sparsity"]).cumcount(),
    )
    looks = plot_style.styles(list(table["label"].unique()))
    labels = plot_style.count_labels(table, by="sparsity")
    title = f"{title}: mean ± s.d. over n seeds"
    figure, grid = plot_style.subplots(size=(8, 5), title=title)
    axes = grid[0, 0]
    place = {"x": "remaining", "y": "test_accuracy"}
    lines = plot_style.draw_lines(axes, table, looks, **place, error="bars")
    handles = {labels[label]: line for label, line in lines.items()}
    for number, row in enumerate(dense.itertuples()):
        sd = 0 if np.isnan(row.test_accuracy_sd) else row.test_accuracy_sd
        low, high = row.test_accuracy - sd, row.test_accuracy + sd
        axes.axhspan(low, high, color=plot_style.GREY, alpha=0.15, linewidth=0)
        dash = plot_style.STYLES[number % len(plot_style.STYLES)].dash
        look = {"color": plot_style.GREY, "linestyle": dash}
        handles[f"{row.label} (n = {row.n})"] = axes.axhline(row.test_accuracy, **look)
    axis_scales.percent_ticks(
        axes, table["remaining"].to_numpy(), write=lambda kept: f"{100 - kept:.4g}"
    )
    axes.set(xlabel="sparsity (%)", ylabel="test accuracy (%)")
    columns = 2 if max(map(len, handles), default=0) <= 45 else 1
    plot_style.legend_below(figure, handles, columns=columns)
    return figure


def exploration(table: pd.DataFrame, *, title: str) -> Figure:
    """Draws the fraction of weights that had ever been active, against the step.

    Args:
      table: from `methods.exploration_table`.
      title: what was trained.

    Returns:
      The figure, with one line for each run, over a logarithmic axis up to 100 %.
    """
    names = list(table["label"].unique())
    looks = plot_style.styles(names, ordered=len(names) > len(plot_style.STYLES))
    size = (6.5 + 0.08 * max(map(len, names), default=0), 4.8)
    title = f"{title}: mean ± s.d. over n replicates"
    figure, grid = plot_style.subplots(size=size, title=title)
    axes = grid[0, 0]
    place = {"x": "step", "y": "explored"}
    lines = plot_style.draw_lines(axes, table, looks, **place, markers=8)
    means = table.groupby(["label", "step"])["explored"].mean()
    axis_scales.percent_axis(axes, means.to_numpy())
    axes.set(xlabel=plot_style.STEP, ylabel="weights ever active (% of prunable)")
    counts = plot_style.count_labels(table, by="run")
    plot_style.legend_right(figure, {counts[name]: one for name, one in lines.items()})
    return figure


def densities(table: pd.DataFrame, *, names: Sequence[str], title: str) -> Figure:
    """Draws the fraction of each layer that each method keeps, as numbers on colors.

    Args:
      table: from `methods.densities_table`, with one row or more.
      names: name of each row.
      title: what was trained.

    Returns:
      The figure: of layers (from input to output) and methods, the more numerous are
      rows and the others columns; colors are logarithmic.
    """
    table = table.set_axis(["\n".join(textwrap.wrap(n, _WIDTH)) for n in names])
    by_method = len(table) > table.shape[1]
    table = (table if by_method else table.T).astype(float)
    figure, grid = plot_style.subplots(
        size=_size(list(table.index), list(table.columns)),
        title=f"{title}: mean over replicates",
    )
    axes = grid[0, 0]
    positive = table.where(table > 0)
    sns.heatmap(
        positive,
        ax=axes,
        norm=LogNorm(min(np.nanmin(positive.to_numpy(), initial=10.0), 10.0), 100.0),
        cmap="viridis",
        annot=table.map(lambda x: "" if np.isnan(x) else formatting.percent(x)),
        fmt="",
        annot_kws={"fontsize": "small"},
        linewidths=1,
        linecolor="white",
        cbar_kws={"label": "weights remaining in the layer (%)"},
    )
    for (row, column), value in np.ndenumerate(table.to_numpy()):
        if value == 0:  # seaborn writes no number where it has no color
            place = {"ha": "center", "va": "center", "fontsize": "small"}
            axes.text(column + 0.5, row + 0.5, "0", **place)
    axis_scales.decade_ticks(figure.axes[-1])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticklabels(
            [plot_style.literal(n.get_text()) for n in axis.get_ticklabels()]
        )
    axes.tick_params(length=0, rotation=0)
    axes.set_xticks(
        axes.get_xticks(),
        axes.get_xticklabels(),
        rotation=35,
        ha="right",
        rotation_mode="anchor",
    )
    axes.grid(visible=False)
    # Separates "all layers" from the layers.
    (axes.axvline if by_method else axes.axhline)(1, color="black", linewidth=1.2)
    return figure


def _size(rows: Sequence[str], columns: Sequence[str]) -> tuple[float, float]:
    """Chooses the size of a heat map, in inches, by the names of rows and columns."""
    beside, below = (
        max(len(line) for name in names for line in name.splitlines())
        for names in (rows, columns)
    )
    lines = sum(name.count("\n") + 1 for name in rows)
    # Names below are rotated: they need half of their length in height, and may reach
    # farther to the left than those beside.
    left = 0.08 * max(beside, below - 9 if below > _SHORT else 0)
    height = 2.3 + 0.27 * lines + 0.05 * max(0, below - _SHORT)
    return 2.2 + left + 0.72 * len(columns), height
