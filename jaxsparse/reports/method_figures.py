"""Method figures: the tables of sparse training, drawn.

As in `figures`, each function returns a new `matplotlib.figure.Figure`, made without
global state; means are over replicates and bars and bands are one sample deviation to
either side.
"""

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from jaxsparse.reports import drawing, labels, tables, text
from jaxsparse.reports import methods as methods_lib
from jaxsparse.reports.drawing import Line

_COLOR = drawing.STYLES[0].color
_LABEL = 32  # characters in a line of the name of a method, beside or below a figure
_SHORT = 16  # characters of a turned name that need no room of their own


def methods(table: pd.DataFrame, *, title: str) -> Figure:
    """Draws each method's test accuracy, one panel a sparsity; dense is a thin line.

    A smaller dense network stands among the methods that end with about as many weights
    as it has. No axis starts at 0, and each says where it does.

    Args:
      table: from `methods.methods_table`.
      title: what the methods were tried on.

    Returns:
      The figure; panels from dense to sparse, methods by falling accuracy.
    """
    table = table.dropna(subset="test_accuracy")
    is_dense = is_dense_reference(table)
    lines, dots = table.loc[is_dense], table.loc[~is_dense]
    if dots.empty:
        lines, dots = dots, table
    panels = _panels(dots)
    heights = [len(rows) + 1.5 for rows in panels]
    # Beside its rows, a panel has a title and the words below it.
    height = max(2.5, 0.8 + sum(0.27 * height + 0.55 for height in heights))
    width = _width(one for rows in panels for one in rows["called"])
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(
        max(len(panels), 1), 1, squeeze=False, height_ratios=heights or None
    )
    for axes, rows in zip(grid[:, 0], panels, strict=False):
        _dots(axes, rows)
        handles = _references(axes, lines)
        _limit(axes, pd.concat([rows, lines]))
        start = f"axis starts at {axes.get_xlim()[0]:.1f} %"
        axes.set_title(f"{_heading(rows)} ({start})", fontsize="medium")
        drawing.finish(axes, x="", y="")
    figure.suptitle(f"{drawing.literal(title)}: mean ± s.d. over n replicates")
    grid[-1, 0].set_xlabel("test accuracy (%)")
    if len(panels) and len(lines):
        called = labels.distinct(lines["label"].tolist(), lines["run"].tolist())
        called = [
            f"{drawing.literal(one.replace('dense', 'dense network', 1))} (n = {n})"
            for one, n in zip(called, lines["n"], strict=True)
        ]
        figure.legend(handles, called, loc="outside lower center", ncols=2)
    return figure


def is_dense_reference(table: pd.DataFrame) -> pd.Series:
    """Says which rows are of the dense network that others are sparse ones of."""
    dense = table["label"].str.startswith(labels.DENSE) & (table["sparsity"] == 0)
    return dense & (table["total"] == table["total"].max())


def by_sparsity(table: pd.DataFrame, dense: pd.DataFrame, *, title: str) -> Figure:
    """Draws test accuracy against sparsity, one line a method.

    Args:
      table: from `methods.sparsities_table`, of sparse runs and lotteries.
      dense: rows of `methods.methods_table` of dense networks, thin lines across.
      title: what was trained.

    Returns:
      The figure; the axis is logarithmic in the weights that remain, dense on the left.
    """
    table = table.dropna(subset="test_accuracy")
    table = table.loc[table["sparsity"] < 100]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    groups = list(table.groupby("label", sort=False))
    handles, called, lines = [], [], []
    for (label, rows), style in zip(groups, drawing.styles(len(groups)), strict=True):
        points = pd.DataFrame(
            {
                "x": 100 - rows["sparsity"],
                "mean": rows["test_accuracy"],
                "sd": rows["test_accuracy_sd"],
            }
        )
        lines.append(Line(str(label), style, points))
        handles.append(drawing.draw(axes, lines[-1]))
        x, mean, sd = (points[name] for name in ("x", "mean", "sd"))
        axes.errorbar(x, mean, sd.fillna(0), fmt="none", color=style.color, capsize=3)
        called.append(f"{drawing.literal(lines[-1].label)} ({_seeds(rows['n'])})")
    for place, row in enumerate(dense.itertuples()):
        sd = 0 if np.isnan(row.test_accuracy_sd) else row.test_accuracy_sd
        low, high = row.test_accuracy - sd, row.test_accuracy + sd
        axes.axhspan(low, high, color=drawing.GREY, alpha=0.15, linewidth=0)
        dash = drawing.STYLES[place % len(drawing.STYLES)].dash
        handles.append(
            axes.axhline(row.test_accuracy, color=drawing.GREY, linestyle=dash)
        )
        called.append(f"{drawing.literal(row.label)} (n = {row.n})")
    remaining = 100 - table["sparsity"].to_numpy()
    drawing.percent_ticks(axes, remaining, write=lambda kept: f"{100 - kept:.4g}")
    axes.set_xlim(1.1 * remaining.max(), remaining.min() / 1.1)
    drawing.finish(axes, x="sparsity (%)", y="test accuracy (%)")
    axes.set_title(f"{drawing.literal(title)}: mean ± s.d. over n seeds")
    figure.legend(handles, called, loc="outside lower center", ncols=_columns(called))
    return figure


def _columns(called: Sequence[str]) -> int:
    """Chooses how many labels a legend below a figure has side by side."""
    return 2 if max(map(len, called), default=0) <= 45 else 1


def _seeds(counts: pd.Series) -> str:
    """Writes of how many seeds the points of a line are."""
    least, most = counts.min(), counts.max()
    return f"n = {least}" if least == most else f"n = {least} to {most}"


def _panels(dots: pd.DataFrame) -> list[pd.DataFrame]:
    """Divides rows among panels, and sorts each by falling accuracy."""
    group = methods_lib.sparsity_groups(dots["sparsity"])
    is_small = (dots["sparsity"] == 0) & (dots["total"] < dots["total"].max())
    sparse = dots.loc[~is_small]
    kept = sparse["kept"].groupby(group.loc[sparse.index]).mean()
    for place in dots.index[is_small]:
        group[place] = np.log(kept / dots.loc[place, "kept"]).abs().idxmin()
    dots = dots.assign(is_small=is_small)
    dots = dots.sort_values("test_accuracy", ascending=False, kind="stable")
    return [rows.assign(called=_called(rows)) for _, rows in dots.groupby(group)]


def _called(rows: pd.DataFrame) -> list[str]:
    """Says what to call each row of a panel, and how large a small network is."""
    called = labels.distinct(rows["label"].tolist(), rows["run"].tolist())
    return [
        f"{one} ({kept:,.0f} weights)" if is_small else one
        for one, kept, is_small in zip(
            called, rows["kept"], rows["is_small"], strict=True
        )
    ]


def _width(called: Iterable[str]) -> float:
    """Chooses the width of a figure in inches, by the longest of its labels."""
    return 6.5 + 0.08 * max((len(one) for one in called), default=0)


def _heading(rows: pd.DataFrame) -> str:
    """Says of what sparsity a panel is."""
    sparsities = rows.loc[~rows["is_small"], "sparsity"]
    low, high = text.sparsity(sparsities.min()), text.sparsity(sparsities.max())
    return f"{low} % sparsity" if low == high else f"{low} to {high} % sparsity"


def _dots(axes: Axes, rows: pd.DataFrame) -> None:
    """Draws one panel: the first row on top, its numbers on the right."""
    places = np.arange(len(rows))
    axes.errorbar(
        rows["test_accuracy"],
        places,
        xerr=rows["test_accuracy_sd"].fillna(0),
        fmt="o",
        color=_COLOR,
        elinewidth=1.2,
        capsize=3,
        zorder=3,
    )
    axes.set_yticks(places, [drawing.literal(one) for one in rows["called"]])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    right = axes.get_yaxis_transform()
    for place, (mean, sd, n) in enumerate(
        zip(rows["test_accuracy"], rows["test_accuracy_sd"], rows["n"], strict=True)
    ):
        words = f"{text.plus_minus(mean, sd)} (n = {n})"
        axes.text(1.02, place, words, transform=right, va="center", fontsize="small")


def _references(axes: Axes, lines: pd.DataFrame) -> list:
    """Draws dense networks as thin lines, and returns them for a legend."""
    drawn = []
    for place, (mean, sd) in enumerate(
        zip(lines["test_accuracy"], lines["test_accuracy_sd"].fillna(0), strict=True)
    ):
        dash = drawing.STYLES[(place + 1) % len(drawing.STYLES)].dash
        axes.axvspan(mean - sd, mean + sd, color=drawing.GREY, alpha=0.15, linewidth=0)
        line = axes.axvline(mean, color=drawing.GREY, linewidth=0.9, linestyle=dash)
        drawn.append(line)
    return drawn


def _limit(axes: Axes, rows: pd.DataFrame) -> None:
    """Sets the limits of accuracy to what is drawn, with some air around it."""
    sd = rows["test_accuracy_sd"].fillna(0)
    low = (rows["test_accuracy"] - sd).min()
    high = (rows["test_accuracy"] + sd).max()
    air = 0.05 * (high - low) or 0.01 * abs(high) or 1.0
    axes.set_xlim(low - air, high + air)


def exploration(table: pd.DataFrame, *, title: str) -> Figure:
    """Draws how much of the network had ever been active, against the step.

    Args:
      table: from `methods.exploration_table`.
      title: usually the run's name.

    Returns:
      The figure, with one line a run, over a logarithmic axis up to all weights.
    """
    figure = Figure(figsize=(_width(table["label"]), 4.8), layout="constrained")
    axes = figure.add_subplot()
    runs = list(table.groupby("run", sort=False))
    handles, called, lines = [], [], []
    for (_, rows), style in zip(runs, _styles(len(runs)), strict=True):
        points = pd.DataFrame(
            {"x": rows["step"], "mean": rows["explored"], "sd": rows["explored_sd"]}
        )
        lines.append(Line(rows["label"].iloc[0], style, points))
        handles.append(drawing.draw(axes, lines[-1], every=max(1, len(rows) // 8)))
        called.append(f"{drawing.literal(lines[-1].label)} (n = {rows['n'].max()})")
    _percent_axis(axes, lines)
    drawing.finish(axes, x=drawing.STEP, y="weights ever active (% of prunable)")
    axes.set_title(f"{drawing.literal(title)}: mean ± s.d. over n replicates")
    if handles:
        figure.legend(handles, called, loc="outside right upper")
    return figure


def _percent_axis(axes: Axes, lines: Sequence[Line]) -> None:
    """Makes the y axis logarithmic, from below the least mean to all weights."""
    axes.set_yscale("log")
    drawing.limit_positive(axes, lines)
    axes.set_ylim(top=115)
    drawing.decade_ticks(axes)


def _styles(count: int) -> list[drawing.Style]:
    """Chooses styles for so many lines; shades where there are too few."""
    few = count <= len(drawing.STYLES)
    return list(drawing.STYLES[:count]) if few else drawing.shades(count)


def densities(table: pd.DataFrame, *, called: list[str], title: str) -> Figure:
    """Draws how much each method keeps of each layer, as numbers on colours.

    Args:
      table: from `methods.densities_table`, with one row or more.
      called: what to call each row.
      title: what the methods were tried on.

    Returns:
      The figure: layers from input to output and methods, of which there are more
      downwards and the others from left to right; colours are logarithmic.
    """
    layers = [str(name) for name in table.columns]
    called = ["\n".join(textwrap.wrap(name, _LABEL)) for name in called]
    down, across = (called, layers) if len(called) > len(layers) else (layers, called)
    values = table.to_numpy(float) if down is called else table.T.to_numpy(float)
    beside, below = (
        max(len(line) for name in names for line in name.splitlines())
        for names in (down, across)
    )
    lines = sum(name.count("\n") + 1 for name in down)
    # Names below are turned: they need half of their length in height, and may reach
    # farther to the left than those beside.
    left = 0.08 * max(beside, below - 9 if below > _SHORT else 0)
    height = 2.3 + 0.27 * lines + 0.05 * max(0, below - _SHORT)
    size = (2.2 + left + 0.72 * len(across), height)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    positive = values[values > 0]
    norm = LogNorm(min(positive.min(initial=100.0), 10.0), 100.0)
    shown = np.ma.masked_where(~(values > 0), values)
    mesh = axes.pcolormesh(
        shown, norm=norm, cmap="viridis", edgecolors="white", linewidth=1
    )
    for (row, column), value in np.ndenumerate(values):
        dark = value > 0 and norm(value) < 0.6
        words = "" if np.isnan(value) else text.percent(value)
        place = {"ha": "center", "va": "center", "fontsize": "small"}
        color = "white" if dark else "black"
        axes.text(column + 0.5, row + 0.5, words, color=color, **place)
    axes.invert_yaxis()
    axes.set_yticks(
        np.arange(len(down)) + 0.5, [drawing.literal(name) for name in down]
    )
    axes.set_xticks(
        np.arange(len(across)) + 0.5,
        [drawing.literal(name) for name in across],
        rotation=35,
        ha="right",
        rotation_mode="anchor",
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    (axes.axvline if down is called else axes.axhline)(1, color="black", linewidth=1.2)
    bar = figure.colorbar(mesh, ax=axes)
    drawing.decade_ticks(bar.ax)
    bar.set_label("weights remaining in the layer (%)")
    figure.suptitle(f"{drawing.literal(title)}: mean over replicates")
    return figure


def history(table: pd.DataFrame, *, title: str) -> Figure:
    """Draws how much of each layer a run had, against the step; a cross: nothing.

    Args:
      table: from `methods.history_table`.
      title: usually the run's name.

    Returns:
      The figure.
    """
    figure = Figure(figsize=(8.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    names = [name for name in table.columns if name != tables.ALL_LAYERS]
    styles = [*_styles(len(names)), drawing.Style("black", "", (0, (1, 1)))]
    names.append(tables.ALL_LAYERS)
    handles, lines = [], []
    for place, (name, style) in enumerate(zip(names, styles, strict=True)):
        kept = table[name].where(table[name] > 0)
        points = pd.DataFrame({"x": kept.index, "mean": kept.to_numpy(), "sd": np.nan})
        lines.append(Line(name, style, points))
        # Layers pruned alike lie on each other: their markers take turns.
        turns = (place % 3, 3) if len(table) > 6 else 1
        handles.append(drawing.draw(axes, lines[-1], every=turns))
        drawing.mark_empty(axes, table.index[table[name] == 0], color=style.color)
    _percent_axis(axes, lines)
    drawing.finish(axes, x=drawing.STEP, y="weights in the layer (%)")
    axes.set_title(f"{drawing.literal(title)}: mean over replicates")
    called = [drawing.literal(name) for name in names]
    columns = 1 + len(called) // 24
    figure.legend(handles, called, loc="outside right upper", ncols=columns)
    return figure
