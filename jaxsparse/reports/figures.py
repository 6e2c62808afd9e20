"""Figures: the tables of a report, drawn.

Each function returns a new `matplotlib.figure.Figure`, made without pyplot and so
without global state; `drawing.render` makes PNG or SVG of it. Lines are means over
replicates, bands are one sample standard deviation to either side. The axis of
weights remaining runs from dense on the left to sparse on the right, as in the
lottery-ticket papers.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxsparse.reports import formatting, method_names, plot_style, tables
from jaxsparse.reports.plot_style import Line

_REMAINING = "weights remaining (%)"


def accuracy(table: pd.DataFrame, *, title: str) -> Figure:
    """Draws test accuracy against weights remaining, one line an arm.

    Where a collapse at the sparse end would flatten everything else, a second panel
    shows the neighbourhood of the dense network.

    Args:
      table: rows of one run, from `tables.levels_table`.
      title: usually the run's name.

    Returns:
      The figure.
    """
    lines = _variant_lines(table, "test_accuracy")
    return _against_remaining(lines, y="test accuracy (%)", title=title, zoom=True)


def early_stop(table: pd.DataFrame, *, title: str) -> Figure:
    """Draws the step of the least validation loss against weights remaining.

    Args:
      table: rows of one run, from `tables.levels_table`.
      title: usually the run's name.

    Returns:
      The figure.
    """
    lines = _variant_lines(table, "early_stop_step")
    y = "early-stop step (optimiser updates)"
    return _against_remaining(lines, y=y, title=title, zoom=False)


def comparison(table: pd.DataFrame, *, called: Mapping[str, str], title: str) -> Figure:
    """Draws the tickets of several runs as `accuracy` draws the arms of one.

    Args:
      table: from `tables.levels_table`.
      called: by a run's name what to call it.
      title: what was trained.

    Returns:
      The figure.
    """
    tickets = table.loc[table["arm"] == tables.TICKET]
    lines = [
        _line(called[str(name)], rows, "test_accuracy", place=place)
        for place, (name, rows) in enumerate(tickets.groupby("run", sort=False))
    ]
    y = "test accuracy of the ticket (%)"
    return _against_remaining(lines, y=y, title=title, zoom=True, reference=False)


def _variant_lines(table: pd.DataFrame, measure: str) -> list[Line]:
    """Makes one line an arm, each arm in a style of its own."""
    table = table.loc[table[measure].notna()]
    tickets = table.loc[table["arm"] == tables.TICKET]
    at = tickets.set_index("level")["weights_remaining"]
    # It is dense at every level: it stands beside the ticket that trained as long.
    beside = table["arm"] == tables.DENSE_CONTINUED
    table = table.assign(
        weights_remaining=table["weights_remaining"].where(
            ~beside, table["level"].map(at)
        )
    ).dropna(subset="weights_remaining")
    strangers = [arm for arm in table["arm"].unique() if arm not in tables.VARIANTS]
    places = {arm: place for place, arm in enumerate([*tables.VARIANTS, *strangers])}
    return [
        _line(formatting.variant_label(arm), rows, measure, place=places[arm])
        for arm, rows in table.groupby("arm", sort=False)
    ]


def _line(label: str, rows: pd.DataFrame, measure: str, *, place: int) -> Line:
    """Makes a line of rows of `tables.levels_table`."""
    least, most = rows["n"].min(), rows["n"].max()
    count = f"n = {least}" if least == most else f"n = {least} to {most}"
    points = pd.DataFrame(
        {
            "x": rows["weights_remaining"],
            "mean": rows[measure],
            "sd": rows[f"{measure}_sd"],
        }
    )
    style = plot_style.STYLES[place % len(plot_style.STYLES)]
    return Line(f"{label} ({count})", style, points)


def _against_remaining(
    lines: Sequence[Line], *, y: str, title: str, zoom: bool, reference: bool = True
) -> Figure:
    """Draws lines over the axis of weights remaining, in one panel or two."""
    whole = plot_style.extent(lines)
    near = _near_dense(lines)
    two = zoom and near[1] - near[0] < 0.35 * (whole[1] - whole[0])
    figure = Figure(figsize=(11, 4.8) if two else (7, 4.8), layout="constrained")
    panels = figure.subplots(1, 2 if two else 1, squeeze=False)[0]
    for axes, limits in zip(panels, (whole, near), strict=False):
        handles = _panel(axes, lines, reference=reference)
        plot_style.limit(axes, *limits)
        plot_style.finish(axes, x=_REMAINING, y=y)
    if two:
        panels[0].set_title("full range", fontsize="medium")
        panels[1].set_title("near the dense network", fontsize="medium")
    figure.suptitle(f"{plot_style.literal(title)}: mean ± s.d. over n replicates")
    if lines:
        called = [plot_style.literal(line.label) for line in lines]
        called += ["dense network (level 0)"] * (len(handles) - len(lines))
        columns = 3 if two else 2
        figure.legend(handles, called, loc="outside lower center", ncols=columns)
    return figure


def _near_dense(lines: Sequence[Line]) -> tuple[float, float]:
    """Chooses limits that leave the sparse end's collapse out of sight."""
    low, high = plot_style.extent(lines, lowest=0.4)
    if lines:
        # Also a run that only falls shows dense well inside the panel.
        dense = lines[0].points.sort_values("x")["mean"].iloc[-1]
        low = min(low, dense - (high - dense))
    return low, high


def _panel(axes: Axes, lines: Sequence[Line], *, reference: bool) -> list[Line2D]:
    """Draws the lines, and dense as a thin horizontal one, over a log axis."""
    axes.set_xscale("log")
    handles = [
        plot_style.draw(axes, line, front=place == 0)
        for place, line in enumerate(lines)
    ]
    xs = np.concatenate([[], *(line.points["x"] for line in lines)])
    if len(xs):
        plot_style.percent_ticks(axes, xs)
        # Reversed: dense on the left.
        axes.set_xlim(max(xs) * 1.1, min(xs) / 1.1)
    if reference and lines and max(xs) >= 100:
        dense = lines[0].points.sort_values("x")["mean"].iloc[-1]
        handles.append(axes.axhline(dense, color=plot_style.GREY, linewidth=0.9))
    return handles


def layers(table: pd.DataFrame, *, title: str) -> Figure:
    """Draws what the tickets keep of each layer; a cross at the foot: nothing.

    Args:
      table: from `tables.layers_table`.
      title: usually the run's name.

    Returns:
      The figure.
    """
    figure = Figure(figsize=(8.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set_yscale("log")
    names = [name for name in table.columns if name != tables.ALL_LAYERS]
    few = len(names) <= len(plot_style.STYLES)
    styles = (
        list(plot_style.STYLES[: len(names)]) if few else plot_style.shades(len(names))
    )
    styles.append(plot_style.Style("black", "", (0, (1, 1))))
    names.append(tables.ALL_LAYERS)
    handles = []
    for place, (name, style) in enumerate(zip(names, styles, strict=True)):
        kept = table[name].where(table[name] > 0)
        points = pd.DataFrame({"x": kept.index, "mean": kept.to_numpy(), "sd": np.nan})
        # Layers pruned alike lie on each other: their markers take turns.
        turns = (place % 3, 3) if len(table) > 6 else 1
        handles.append(plot_style.draw(axes, Line(name, style, points), every=turns))
        plot_style.mark_empty(axes, table.index[table[name] == 0], color=style.color)
    plot_style.decade_ticks(axes)
    shown = table.index[:: max(1, -(-len(table) // 12))]
    remaining = [
        formatting.percent(table.loc[level, tables.ALL_LAYERS]) for level in shown
    ]
    axes.set_xticks(
        shown,
        [f"{level}\n{kept}" for level, kept in zip(shown, remaining, strict=True)],
    )
    x = "level, and below it the weights remaining in all layers (%)"
    plot_style.finish(axes, x=x, y="weights remaining in the layer (%)")
    axes.set_title(f"{plot_style.literal(title)}: mean over replicates")
    called = [plot_style.literal(name) for name in names]
    columns = 1 + len(called) // 24
    figure.legend(handles, called, loc="outside right upper", ncols=columns)
    return figure


def curves(run: tables.RunRecords, *, title: str, most: int = 5) -> Figure:
    """Draws accuracy and training loss of the ticket against the step.

    The accuracy is that on the validation set, or on the test set where there is no
    validation set. The dense network's line includes its pre-training.

    Args:
      run: whose records.
      title: usually the run's name.
      most: how many levels to draw at most: dense, the last, and some between.

    Returns:
      The figure.
    """
    evals, trains = tables.frame([run], "eval"), tables.frame([run], "train")
    measure = "validation_accuracy"
    if evals[measure].isna().all():
        measure = "test_accuracy"
    evals[measure] = 100 * evals[measure]
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    right.set_yscale("log")
    called = _labels(run, most)
    styles = plot_style.shades(len(called))
    handles = []
    for axes, rows, name in ((left, evals, measure), (right, trains, "loss")):
        lines = [
            Line(label, style, _by_step(rows, name, level=level))
            for (level, label), style in zip(called.items(), styles, strict=True)
        ]
        handles = [
            plot_style.draw(axes, line, every=max(1, len(line.points) // 8))
            for line in lines
        ]
        if axes is left:
            plot_style.limit(left, *plot_style.extent(lines, lowest=0.05))
        else:
            plot_style.limit_positive(right, lines)
    if called:
        start = f"axis starts at {left.get_ylim()[0]:.1f} %"
        left.set_title(start, fontsize="medium")
    plot_style.finish(left, x=plot_style.STEP, y=f"{measure.replace('_', ' ')} (%)")
    plot_style.finish(
        right, x=plot_style.STEP, y="training loss (mean since the last record)"
    )
    what = "" if method_names.trains_once(run) else "tickets, "
    figure.suptitle(f"{plot_style.literal(title)}: {what}mean ± s.d. over replicates")
    if handles:
        names = [plot_style.literal(name) for name in called.values()]
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def _labels(run: tables.RunRecords, most: int) -> dict[int, str]:
    """Chooses the levels whose curves to draw, and says what to call them."""
    rows = pd.Index(tables.frame([run], "train").query("arm == 'ticket'")["level"])
    seen = rows.union(tables.frame([run], "eval").query("arm == 'ticket'")["level"])
    seen = sorted(set(seen))
    table = tables.levels_table([run])
    tickets = table.loc[table["arm"] == tables.TICKET].set_index("level")
    places = np.unique(np.linspace(0, len(seen) - 1, min(most, len(seen))).round())
    called = {}
    first = (
        method_names.of_run(run) if method_names.trains_once(run) else "dense (level 0)"
    )
    for level in (seen[int(place)] for place in places):
        called[level] = f"level {level}" if level else first
        if level and level in tickets.index:
            kept = formatting.percent(tickets.loc[level, "weights_remaining"])
            called[level] = f"{kept} % (level {level})"
    return called


def _by_step(rows: pd.DataFrame, measure: str, *, level: int) -> pd.DataFrame:
    """Averages the ticket's records of one level over replicates, step by step."""
    arms = [tables.TICKET, "pretraining"] if level == 0 else [tables.TICKET]
    rows = rows.loc[(rows["level"] == level) & rows["arm"].isin(arms)]
    # Pre-training and level 0 may both speak of the step where they meet.
    rows = rows.dropna(subset=measure).drop_duplicates(["replicate", "step"])
    points = rows.groupby("step")[measure].agg(["mean", "std"]).reset_index()
    return points.rename(columns={"step": "x", "std": "sd"})
