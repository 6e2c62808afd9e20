"""Gradient-flow figures: what the study of gradient flow found, drawn.

As in `figures`, each function returns a new `matplotlib.figure.Figure`, made without
global state; lines are means over seeds and bands one sample deviation to either side.
They take the parts of what `gradient_flow_findings.read` returns, whose entries have
arrays in place of lists, and a label each.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from jaxsparse.reports import plot_style
from jaxsparse.reports.plot_style import Line

Part = Mapping[str, Any]

# Rows that many arms are divided among, by what their masks do.
_KINDS = {
    "fixed masks": "lt scratch scratch_plus scratch_same liu prune_restart",
    "masks that change": "rigl rigl_plus rigl_liu rigl_inverted set set_plus",
    "pruning and dense": "prune dense small_dense",
}
_OTHERS = "others"
_MOST = len(plot_style.STYLES)
_BEGINNING = 1000  # updates
_DASHES = {False: "-", True: (0, (4, 1.5))}  # by whether masks have just changed
_BLUE, _RED = plot_style.STYLES[0], plot_style.STYLES[1]


def draw(found: Part) -> dict[str, Figure]:
    """Draws every figure that there are findings for.

    Args:
      found: findings on one network, from `gradient_flow_findings.read`.

    Returns:
      Figures by name, in the order of the page.
    """
    functions = {
        "gradient": (gradient, "gradient"),
        "changes": (changes, "changes"),
        "segments": (segments, "segments"),
        "map": (solution_map, "map"),
        "hessian": (hessian, "spectra"),
        "signal": (signal, "signal"),
    }
    return {
        name: function(found[part], title=found["title"])
        for name, (function, part) in functions.items()
        if found[part]
    }


def gradient(part: Part, *, title: str) -> Figure:
    """Draws the norm of the gradient over training, and beside it the beginning.

    Args:
      part: by arm, "label", "steps" [m] and "norm" [r m]. More arms than there are
        styles are divided among rows by what their masks do.
      title: the network's.

    Returns:
      The figure; all panels share their logarithmic axis of norms.
    """
    rows = _rows(part)
    last = max(entry["steps"].max() for entry in part.values())
    y = ["norm of the gradient", ""] if last > _BEGINNING else ["norm of the gradient"]
    heading = f"{title}: mean ± s.d. over n seeds"
    figure, grid = plot_style.grid(
        len(rows), x=plot_style.STEP, y=y, share="all", title=heading
    )
    drawn = []
    for panels, (kind, arms) in zip(grid, rows, strict=True):
        lines = [
            _line(part[arm], style, x="steps", y="norm")
            for arm, style in zip(arms, plot_style.STYLES, strict=False)
        ]
        drawn += lines
        for axes, apart in zip(panels, (last / 8, _BEGINNING / 8), strict=False):
            handles = [
                plot_style.draw(axes, line, every=_every(line, apart)) for line in lines
            ]
        called = [line.label for line in lines]
        plot_style.legend_beside(panels[-1], handles, called, heading=kind)
    _logarithmic(grid[0, 0], (entry["norm"] for entry in part.values()))
    plot_style.limit_positive(grid[0, 0], drawn)
    if len(y) == 2:
        grid[0, 0].set_title("all of training", fontsize="medium")
        grid[0, 1].set_title(f"first {_BEGINNING:,} updates", fontsize="medium")
        for axes in grid[:, 1]:
            axes.set_xlim(-0.03 * _BEGINNING, 1.03 * _BEGINNING)
    return figure


def changes(part: Part, *, title: str) -> Figure:
    """Draws what each change of masks did to the norm of the gradient.

    Args:
      part: by arm, "label", "steps" [m], "before" and "after" [r m].
      title: the network's.

    Returns:
      The figure: one panel an arm, all with the same axes, and a line at 0. The running
      mean is over about a sixth of the changes.
    """
    labels = [_with_n(entry["label"], entry["after"]) for entry in part.values()]
    title = f"{title}: mean ± s.d. over n seeds"
    y = "change of the norm"
    figure, panels = plot_style.panels(labels, x=plot_style.STEP, y=y, title=title)
    lines, handles = [], []
    for axes, entry in zip(panels, part.values(), strict=True):
        points = plot_style.means(entry["steps"], entry["after"] - entry["before"])
        window = max(3, 2 * (len(points) // 12) + 1)
        smooth = points["mean"].rolling(window, center=True, min_periods=1).mean()
        lines.append(Line("", _BLUE._replace(marker=""), points))
        handles = [plot_style.draw(axes, lines[-1])]
        points = points.assign(mean=smooth, sd=np.nan)
        line = Line("", _RED._replace(marker="", dash="-"), points)
        handles.append(plot_style.draw(axes, line, front=True))
        handles.append(axes.axhline(0, color="black", linewidth=0.9, zorder=1))
        handles[0].set_linewidth(0.8)
    plot_style.limit(panels[0], *plot_style.extent(lines))
    called = ["at each change of masks", "running mean", "no change"]
    figure.legend(handles, called, loc="outside lower center", ncols=3)
    return figure


def segments(part: Part, *, title: str) -> Figure:
    """Draws loss and error along segments to the pruned solution.

    Args:
      part: by start, "label", "alphas" [m], "loss" and "error" [r m], errors in
        percent; one of the two may be missing; perhaps "examples".
      title: the network's.

    Returns:
      The figure; loss is logarithmic, and the ends are marked.
    """
    measures = {"loss": "loss", "error": "error (%)"}
    names = [name for name in measures if any(name in one for one in part.values())]
    y = [measures[name] for name in names]
    x = "from a network, at 0, to the pruned solution, at 1"
    rows = _rows(part)
    heading = f"{title}: mean ± s.d. over n seeds"
    counts = {f"{one['examples']:,.0f}" for one in part.values() if "examples" in one}
    if counts:
        heading += f", on {' or '.join(sorted(counts))} training examples"
    figure, grid = plot_style.grid(len(rows), x=x, y=y, share="col", title=heading)
    for panels, (kind, keys) in zip(grid, rows, strict=True):
        drawn: dict[str, tuple[Line2D, str]] = {}
        for axes, name in zip(panels, names, strict=True):
            for key, style in zip(keys, plot_style.STYLES, strict=False):
                if name in part[key]:
                    line = _line(part[key], style, x="alphas", y=name)
                    handle = plot_style.draw(axes, line, every=_every(line, 0.2))
                    drawn[key] = handle, line.label
            for end in (0, 1):
                axes.axvline(end, color=plot_style.GREY, linewidth=0.9, zorder=1)
        handles, called = zip(*drawn.values(), strict=True)
        plot_style.legend_beside(panels[-1], handles, called, heading=kind)
    if names[0] == "loss":
        _logarithmic(
            grid[0, 0], (one["loss"] for one in part.values() if "loss" in one)
        )
    return figure


def solution_map(part: Part, *, title: str) -> Figure:
    """Draws solutions as points whose distances are about those of the solutions.

    Args:
      part: "points" [m 2], "groups" (m names) and perhaps "relative_stress". Groups
        that differ in a last " start" or " end" only share colour and marker, hollow
        at the start; the first group stands out.
      title: the network's.

    Returns:
      The figure; both axes have one scale.
    """
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.add_subplot()
    table = pd.DataFrame(part["points"], columns=["x", "y"])
    table["group"] = part["groups"]
    first, *others = table["group"].unique()
    families = list(dict.fromkeys(_family(group) for group in others))
    handles, called = [], []
    for group, rows in table.groupby("group", sort=False):
        style, size = plot_style.Style("black", "*", ""), 15
        if group != first:
            style, size = plot_style.STYLES[families.index(_family(group)) % _MOST], 8
        (drawn,) = axes.plot(
            *(rows["x"], rows["y"]),
            linestyle="none",
            marker=style.marker,
            markersize=size,
            markeredgecolor=style.color,
            markerfacecolor="none" if group.endswith(" start") else style.color,
            alpha=0.85,
            zorder=4 if group == first else 3,
        )
        handles.append(drawn)
        called.append(f"{plot_style.literal(group)} (n = {len(rows)})")
    axes.set_aspect("equal", adjustable="datalim")
    plot_style.finish(axes, x="first coordinate (L2 distance)", y="second coordinate")
    stress = part.get("relative_stress")
    words = "" if stress is None else f", relative stress {stress:.2g}"
    figure.suptitle(f"{plot_style.literal(title)}\ndistances between solutions{words}")
    figure.legend(handles, called, loc="outside lower center", ncols=3)
    return figure


def _family(group: str) -> str:
    """Returns the name of a group without the moment it ends with."""
    return group.removesuffix(" start").removesuffix(" end")


def hessian(part: Part, *, title: str) -> Figure:
    """Draws how many eigenvalues lie beyond each value, on either side of 0.

    Args:
      part: by arm, "label" and "states", each with "step", "moment" and "eigenvalues"
        [n].
      title: the network's.

    Returns:
      The figure: one panel an arm, all with the same axes; dark states are early, and
      states just after a change of masks dashed.
    """
    states = [state for entry in part.values() for state in entry["states"]]
    steps = sorted({state["step"] for state in states})
    shades = plot_style.shades(len(steps))
    colors = {step: one.color for step, one in zip(steps, shades, strict=True)}
    labels = [entry["label"] for entry in part.values()]
    title = f"{title}: spectrum of the Hessian, one seed"
    y = "eigenvalues as far from 0"
    figure, panels = plot_style.panels(labels, x="eigenvalue", y=y, title=title)
    tails = []
    for axes, entry in zip(panels, part.values(), strict=True):
        axes.axvline(0, color=plot_style.GREY, linewidth=0.9, zorder=1)
        for state in entry["states"]:
            dash = _DASHES[state["moment"] == "after"]
            style = plot_style.Style(colors[state["step"]], "", dash)
            for tail in _tails(state["eigenvalues"]):
                plot_style.draw(axes, Line("", style, tail))
                tails.append(tail)
    if tails:
        _symlog(panels[0], np.concatenate([tail["x"] for tail in tails]))
        panels[0].set_yscale("log")
    handles = [Line2D([], [], color=color, linewidth=2) for color in colors.values()]
    called = [f"step {step:,.0f}" for step in steps]
    moments = {state["moment"] for state in states} - {""}
    for moment in sorted(moments, reverse=True):
        dash = _DASHES[moment == "after"]
        handles.append(Line2D([], [], color="black", linestyle=dash))
        called.append(f"{moment} a change of masks")
    columns = int(figure.get_figwidth() // 2.2)  # inches
    figure.legend(handles, called, loc="outside lower center", ncols=columns)
    return figure


def _tails(eigenvalues: np.ndarray) -> Iterator[pd.DataFrame]:
    """Counts the eigenvalues beyond each of them, at about 200 of them a side."""
    size = np.abs(eigenvalues)
    rounding = np.finfo(np.float32).eps * math.sqrt(size.size) * size.max()
    for sign in (-1, 1):
        far = np.sort(size[sign * eigenvalues > rounding])[::-1]
        if not len(far):
            continue
        shown = np.unique(np.geomspace(1, len(far), 200).round().astype(int))
        x = sign * far[shown - 1]
        yield pd.DataFrame({"x": x, "mean": shown.astype(float), "sd": np.nan})


def _symlog(axes: Axes, values: np.ndarray) -> None:
    """Makes the x axis logarithmic on either side of 0, as far as values go."""
    powers = np.log10(np.abs(values))
    low, high = math.floor(powers.min()), math.ceil(powers.max())
    axes.set_xscale("symlog", linthresh=10.0**low, linscale=1.0)
    apart = max(1, math.ceil((high - low) / 3))
    # What lies near 0 would be written over its 0.
    ticks = 10.0 ** np.arange(high, min(low + apart, high) - 1, -apart)
    axes.xaxis.set_major_locator(FixedLocator([*-ticks, 0, *ticks[::-1]]))
    axes.xaxis.set_minor_locator(NullLocator())


def signal(part: Part, *, title: str) -> Figure:
    """Draws how strong signals are in each layer, by initialisation.

    Args:
      part: by initialisation, "label", "layers" ([r] by name) and "neurons" ([o] by
        name), and perhaps "output" [r].
      title: the network's.

    Returns:
      The figure, over a logarithmic axis with a line at 1.
    """
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes = figure.add_subplot()
    names = list(dict.fromkeys(n for entry in part.values() for n in entry["layers"]))
    handles, called = [], []
    for place, entry in enumerate(part.values()):
        style = plot_style.STYLES[place % _MOST]
        beside = 0.8 * ((place + 0.5) / len(part) - 0.5)
        layers = pd.DataFrame(entry["layers"]).reindex(columns=names)
        x = np.arange(len(names)) + beside
        for at, name in zip(x, names, strict=True):
            _dots(axes, at, entry["neurons"].get(name), style, width=0.5 / len(part))
        drawn = axes.errorbar(
            x,
            layers.mean(),
            yerr=layers.std().fillna(0),
            color=style.color,
            fmt=style.marker,
            markersize=7,
            markeredgecolor="black",
            ecolor="black",
            capsize=3,
            zorder=4,
        )
        handles.append(drawn)
        called.append(_with_n(_with_output(entry), layers.to_numpy()))
    axes.axhline(1, color=plot_style.GREY, linewidth=0.9, zorder=1)
    axes.set_yscale("log")
    axes.set_xticks(range(len(names)), [plot_style.literal(name) for name in names])
    plot_style.finish(axes, x="layer", y="standard deviation")
    figure.suptitle(f"{plot_style.literal(title)}: signals at initialisation")
    called = [plot_style.literal(label) for label in called]
    figure.legend(handles, called, loc="outside lower center", ncols=2)
    return figure


def _with_output(entry: Part) -> str:
    """Adds to a label how strong the network's outputs are."""
    output = pd.Series(entry.get("output", ()), dtype=float).mean()
    return entry["label"] + ("" if pd.isna(output) else f", output {output:.2g}")


def _dots(
    axes: Axes,
    at: float,
    values: np.ndarray | None,
    style: plot_style.Style,
    *,
    width: float,
) -> None:
    """Draws a layer's neurons side by side, and a cross at the foot for those at 0."""
    if values is None:
        return
    alive = values[values > 0]
    # Neighbours by size lie apart: the golden ratio never repeats a place.
    x = at + width * ((np.argsort(np.argsort(alive)) * 0.618034) % 1 - 0.5)
    axes.plot(x, alive, ".", color=style.color, markersize=3, alpha=0.5, zorder=2)
    if len(alive) < len(values):
        plot_style.mark_empty(axes, pd.Index([at]), color=style.color)


def _logarithmic(axes: Axes, values: Iterable[np.ndarray]) -> None:
    """Makes a y axis, and those that share it, logarithmic if it can be."""
    if any(np.any(array > 0) for array in values):
        axes.set_yscale("log")


def _with_n(label: str, values: np.ndarray) -> str:
    """Adds to a label how many seeds there are, of values by seed [r m]."""
    return f"{label} (n = {np.isfinite(values).any(axis=1).sum()})"


def _line(entry: Part, style: plot_style.Style, *, x: str, y: str) -> Line:
    """Makes the line of an entry."""
    return Line(
        _with_n(entry["label"], entry[y]), style, plot_style.means(entry[x], entry[y])
    )


def _every(line: Line, apart: float) -> int:
    """Says at every which point markers lie about so far from each other."""
    x = line.points["x"]
    extent = x.max() - x.min()
    return max(1, round(apart * len(x) / extent)) if extent > 0 else 1


def _rows(part: Part) -> list[tuple[str, list[str]]]:
    """Divides entries among rows of at most as many as there are styles."""
    if len(part) <= _MOST:
        return [("", list(part))]
    known = {key: kind for kind, keys in _KINDS.items() for key in keys.split()}
    kinds = {
        kind: [key for key in part if known.get(key, _OTHERS) == kind]
        for kind in (*_KINDS, _OTHERS)
    }
    return [
        (kind, keys[first : first + _MOST])
        for kind, keys in kinds.items()
        for first in range(0, len(keys), _MOST)
    ]
