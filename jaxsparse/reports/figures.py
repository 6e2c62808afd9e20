"""Figures: the results of lottery-ticket runs, level by level.

Each function returns a new `matplotlib.figure.Figure`, which `plot_style.render` turns
into PNG or SVG. Lines are means over replicates; bands are one sample standard
deviation to either side. The axis of weights remaining goes from dense on the left to
sparse on the right, as in the lottery-ticket papers.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxsparse.reports import (
    axis_scales,
    formatting,
    method_names,
    plot_style,
    records,
    settings,
    tables,
)
from jaxsparse.reports.plot_style import Style
from jaxsparse.reports.records import RunRecords
from jaxsparse.stages import TICKET

_REMAINING = "weights remaining (%)"
_Lines = tuple[pd.DataFrame, Mapping[str, Style]]  # rows, and styles by label
_Extent = tuple[float, float]  # lowest and highest value


def accuracy(levels: pd.DataFrame, *, title: str) -> Figure:
    """Draws test accuracy against weights remaining, one line for each variant.

    If a collapse at the sparse end would flatten everything else, a second panel shows
    the neighborhood of the dense network.

    Args:
      levels: records of one run, from `tables.in_percent`.
      title: what was trained.
    """
    lines = _variants(levels, "test_accuracy")
    return _against_remaining(lines, y="test accuracy (%)", title=title, zoom=True)


def perplexity(levels: pd.DataFrame, *, title: str) -> Figure:
    """Draws test perplexity against weights remaining, one line for each variant.

    Args:
      levels: records of one run that predicts next tokens, from `tables.in_percent`.
      title: what was trained.
    """
    lines = _variants(levels, "test_perplexity")
    return _against_remaining(lines, y="test perplexity", title=title)


def early_stop(levels: pd.DataFrame, *, title: str) -> Figure:
    """Draws the step of the lowest validation loss against weights remaining.

    Args:
      levels: records of one run, from `tables.in_percent`.
      title: what was trained.
    """
    lines = _variants(levels, "early_stop_step")
    y = "early-stop step (optimizer updates)"
    return _against_remaining(lines, y=y, title=title)


def comparison(
    levels: pd.DataFrame, *, labels: Mapping[str, str], title: str
) -> Figure:
    """Draws the test accuracy of the tickets of several runs.

    Args:
      levels: records of the runs, from `tables.in_percent`.
      labels: label of each run, by its name.
      title: what was trained.
    """
    rows = levels.loc[levels["variant"] == TICKET]
    rows = rows.assign(label=rows["run"].map(labels), y=rows["test_accuracy"])
    looks = plot_style.styles(list(rows["label"].unique()))
    y = "test accuracy of the ticket (%)"
    return _against_remaining((rows, looks), y=y, title=title, zoom=True)


def _variants(levels: pd.DataFrame, measure: str) -> _Lines:
    """Labels the records by variant, each with its own style."""
    rows = levels.loc[levels[measure].notna()]
    tickets = rows.loc[rows["variant"] == TICKET]
    remaining = tickets.groupby("level")["weights_remaining"].mean()
    # It is dense at every level: it is drawn at the ticket that was trained as long.
    dense = rows["variant"] == tables.DENSE_CONTINUED
    at = rows["weights_remaining"].where(~dense, rows["level"].map(remaining))
    rows = rows.assign(weights_remaining=at, y=rows[measure]).dropna(
        subset="weights_remaining"
    )
    known = [*tables.VARIANTS, *sorted(set(rows["variant"]) - set(tables.VARIANTS))]
    looks = plot_style.styles(known)
    present = [variant for variant in known if (rows["variant"] == variant).any()]
    labels = {variant: formatting.variant_label(variant) for variant in present}
    rows = rows.assign(label=rows["variant"].map(labels))
    return rows, {labels[variant]: looks[variant] for variant in present}


def _against_remaining(
    lines: _Lines, *, y: str, title: str, zoom: bool = False
) -> Figure:
    """Draws lines over the axis of weights remaining, in one panel or two."""
    rows, looks = lines
    # The replicates of a level may differ by a few weights.
    at = rows.groupby(["label", "level"])["weights_remaining"].transform("mean")
    rows = rows.assign(x=at)
    whole, near = _extents(rows)
    two = zoom and near[1] - near[0] < 0.35 * (whole[1] - whole[0])
    figure, grid = plot_style.subplots(
        1,
        2 if two else 1,
        size=(11, 4.8) if two else (7, 4.8),
        title=f"{title}: mean ± s.d. over n replicates",
    )
    handles, labels = {}, plot_style.count_labels(rows, by="level")
    dense = _dense(rows)
    for axes, limits in zip(grid[0], (whole, near), strict=False):
        lines = plot_style.draw_lines(axes, rows, looks, x="x", y="y", markers=50)
        handles = {labels[label]: line for label, line in lines.items()}
        axis_scales.percent_ticks(axes, rows["x"].to_numpy())
        axis_scales.limit(axes, *limits)
        axes.set(xlabel=_REMAINING, ylabel=y)
        if dense is not None:
            line = axes.axhline(dense, color=plot_style.GREY, linewidth=0.9, zorder=1)
            handles["dense network (level 0)"] = line
    if two:
        grid[0, 0].set_title("full range", fontsize="medium")
        grid[0, 1].set_title("near the dense network", fontsize="medium")
    plot_style.legend_below(figure, handles, columns=3 if two else 2)
    return figure


def _dense(rows: pd.DataFrame) -> float | None:
    """Returns the mean of the dense network; None for several runs or without it."""
    start = rows.loc[(rows["level"] == 0) & (rows["variant"] == TICKET)]
    one = rows["run"].nunique() == 1
    return float(start["y"].mean()) if one and len(start) else None


def _extents(rows: pd.DataFrame) -> tuple[_Extent, _Extent]:
    """Returns the vertical extent of all lines, and of those near the dense network.

    The second excludes the lowest two fifths of the means, and so the collapse at the
    sparse end, but includes the dense network.
    """
    table = rows.groupby(["label", "x"])["y"].agg(["mean", "std"]).reset_index()
    if table.empty:
        return (np.nan, np.nan), (np.nan, np.nan)
    sd = table["std"].fillna(0)
    high = float((table["mean"] + sd).max())
    low = float(table["mean"].quantile(0.4))
    # A run that only falls also has its dense network well inside the panel.
    dense = table.loc[table["x"].idxmax(), "mean"]
    return (float((table["mean"] - sd).min()), high), (min(low, 2 * dense - high), high)


def layers(table: pd.DataFrame, *, title: str) -> Figure:
    """Draws the fraction of each layer that tickets keep; a cross at the foot: none.

    Args:
      table: from `tables.layers_table`.
      title: what was trained.
    """
    x = "level, and below it the weights remaining in all layers (%)"
    figure = layer_lines(
        table, x=x, y="weights remaining in the layer (%)", title=title
    )
    shown = table.index[:: max(1, -(-len(table) // 12))]
    remaining = [formatting.percent(p) for p in table.loc[shown, tables.ALL_LAYERS]]
    ticks = [f"{level}\n{kept}" for level, kept in zip(shown, remaining, strict=True)]
    figure.axes[0].set_xticks(shown, ticks)
    return figure


def layer_lines(table: pd.DataFrame, *, x: str, y: str, title: str) -> Figure:
    """Draws the fraction of each layer that remains, one line for each layer.

    Args:
      table: one column for each layer and "all layers", in percent; the index is the
        horizontal position.
      x: label of the horizontal axis.
      y: label of the vertical axis.
      title: what was trained.
    """
    names = [name for name in table.columns if name != tables.ALL_LAYERS]
    looks = plot_style.styles(names, ordered=len(names) > len(plot_style.STYLES))
    looks[tables.ALL_LAYERS] = Style("black", "", (0, (1, 1)))
    rows = (
        table.rename_axis("x").melt(ignore_index=False, var_name="label").reset_index()
    )
    positive = rows.loc[rows["value"] > 0]
    title = f"{title}: mean over replicates"
    figure, grid = plot_style.subplots(size=(8.5, 4.8), title=title)
    axes = grid[0, 0]
    handles = plot_style.draw_lines(
        axes, positive, looks, x="x", y="value", error="none", markers=8
    )
    axis_scales.percent_axis(axes, positive["value"].to_numpy())
    for name, style in looks.items():
        axis_scales.mark_zeros(axes, table.index[table[name] == 0], color=style.color)
    axes.set(xlabel=x, ylabel=y)
    plot_style.legend_right(figure, handles)
    return figure


def curves(run: RunRecords, *, title: str, most: int = 5) -> Figure:
    """Draws accuracy and training loss of the ticket against the step.

    For networks that predict next tokens, perplexity takes the place of accuracy. It is
    that on the validation set, or on the test set if there is no validation set. The
    line of the dense network includes its pre-training.

    Args:
      run: run whose records are used.
      title: what was trained.
      most: how many levels are drawn at most: dense, the last, and some between.
    """
    evals, trains = records.frame([run], "eval"), records.frame([run], "train")
    has_validation = evals["validation_accuracy"].notna().any()
    which = "validation" if has_validation else "test"
    if settings.predicts_tokens(run):
        measure, values = f"{which} perplexity", np.exp(evals[f"{which}_loss"])
    else:
        measure, values = f"{which} accuracy (%)", 100 * evals[f"{which}_accuracy"]
    evals = _of_ticket(evals.assign(y=values))
    trains = _of_ticket(trains.assign(y=trains["loss"]))
    labels = _level_labels(run, sorted({*evals["level"], *trains["level"]}), most)
    looks = plot_style.styles(list(labels.values()), ordered=True)
    what = "" if method_names.trains_once(run) else "tickets, "
    title = f"{title}: {what}mean ± s.d. over replicates"
    figure, grid = plot_style.subplots(1, 2, size=(11, 4.8), title=title)
    handles = {}
    for axes, rows in zip(grid[0], (evals, trains), strict=True):
        rows = rows.assign(label=rows["level"].map(labels)).dropna(subset="label")
        handles |= plot_style.draw_lines(axes, rows, looks, x="step", y="y", markers=8)
        means = rows.groupby(["label", "step"])["y"].agg(["mean", "std"])
        if axes is grid[0, 1]:
            axis_scales.limit_positive(axes, means["mean"].to_numpy())
            y = "training loss (mean since the last record)"
        elif settings.predicts_tokens(run):
            axis_scales.limit_positive(axes, means["mean"].to_numpy())
            y = measure
        else:
            top = (means["mean"] + means["std"].fillna(0)).max()
            axis_scales.limit(axes, means["mean"].quantile(0.05), top)
            axes.set_title(
                f"axis starts at {axes.get_ylim()[0]:.1f} %", fontsize="medium"
            )
            y = measure
        axes.set(xlabel=plot_style.STEP, ylabel=y)
    plot_style.legend_below(figure, handles, columns=max(1, len(handles)))
    return figure


def _of_ticket(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the records of tickets, and of the pre-training of the dense network."""
    before = (rows["level"] == 0) & (rows["variant"] == "pretraining")
    rows = rows.loc[before | (rows["variant"] == TICKET)].dropna(subset="y")
    # Pre-training and level 0 may both have a record of the step where they meet.
    return rows.drop_duplicates(["level", "replicate", "step"])


def _level_labels(run: RunRecords, seen: Sequence[int], most: int) -> dict[int, str]:
    """Chooses the levels whose curves are drawn, and labels them."""
    table = tables.levels_table([run])
    tickets = table.loc[table["variant"] == TICKET].set_index("level")
    once = method_names.trains_once(run)
    places = np.unique(np.linspace(0, len(seen) - 1, min(most, len(seen))).round())
    labels = {}
    for level in (seen[int(place)] for place in places):
        labels[level] = f"level {level}"
        if level == 0:
            labels[level] = method_names.of_run(run) if once else "dense (level 0)"
        elif level in tickets.index:
            kept = formatting.percent(tickets.loc[level, "weights_remaining"])
            labels[level] = f"{kept} % (level {level})"
    return labels
