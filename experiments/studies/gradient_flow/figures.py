"""Figures: the measurements of the study, drawn.

Lines are means over seeds, bands one sample standard deviation to either side.
"""

from typing import Any

import jax
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.studies.gradient_flow import published, spectra
from experiments.studies.gradient_flow.published import LABELS
from experiments.studies.tables import lines
from jaxsparse.analysis import embedding
from jaxsparse.reports import axis_scales, plot_curves, plot_style

Found = dict[str, Any]

# Panels among which variants are divided, by what happens to their masks.
_KINDS = {
    "fixed masks": "lt lt_150 scratch scratch_plus scratch_same liu prune_restart",
    "mask updates": (
        "rigl rigl_plus rigl_liu rigl_inverted rigl_inverted_plus set set_plus"
    ),
    "pruning and dense": "prune dense small_dense",
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}
_SIGNALS = {
    "dense": "dense, Glorot",
    "masked": "Glorot, masked",
    "layer": "Liu, by layer",
    "fan_in": "sparsity-aware, scale 1",
    "fan_in_he": "sparsity-aware, scale 2",
}
CAPTIONS = {
    "gradient": "Norm of the gradient with respect to the unmasked weights, by step.",
    "changes": (
        "Ratio of the gradient norm after each mask update to that before it, on the "
        "same examples: geometric mean over seeds; band: one standard deviation of the "
        "logarithms. Norms that are 0 or not finite are left out. The running mean is "
        "over about a sixth of the mask updates."
    ),
    "interpolations": (
        "Loss and error on training examples along the linear interpolation from a "
        "network, at 0, to the pruned solution, at 1."
    ),
    "map": (
        "Solutions in the plane, by multidimensional scaling of their L2 distances; "
        "hollow: before training. Distances are estimated from 256 random "
        "projections."
    ),
    "hessian": (
        "Eigenvalues of the Hessian of the training loss: how many are at least as far "
        "from 0, the negative to the left and the positive to the right. Those below "
        "the rounding error of float32 are left out."
    ),
    "signal": (
        "Standard deviation of the outputs of each layer at initialization, for "
        "standard normal inputs. Large: of the layer, mean ± s.d. over seeds. Small: "
        "of each of its neurons, for the first seed; a cross at the foot: some are 0."
    ),
}


def draw(found: Found, title: str) -> dict[str, Figure | None]:
    """Draws all figures; None for a figure without content.

    Args:
      found: from `variants.arrange`.
      title: what was trained.
    """
    return {
        "gradient": gradient(found["gradients"], title),
        "changes": changes(found["changes"], title),
        "interpolations": interpolations(found["interpolations"], title),
        "map": solution_map(found["map"], title),
        "hessian": spectra.hessian(found["curvature"], title),
        "signal": signal(found["signals"], title),
    }


def gradient(part: Found, title: str) -> Figure | None:
    """Draws the norm of the gradient over training, one panel for each kind of masks.

    Args:
      part: "steps" [m] and "norm" [seeds m] by variant.
      title: what was trained.
    """
    order = [name for name in _KIND_OF if name in part]
    if not order:
        return None
    rows = [
        lines(part[n]["steps"], part[n]["norm"], panel=_KIND_OF[n], label=LABELS[n])
        for n in order
    ]
    table = pd.concat(rows)
    figure = plot_curves.curves(
        table,
        x=plot_style.STEP,
        y="norm of the gradient",
        title=title,
        scale="steps",
        error="band",
    )
    if figure is not None:
        means = table.groupby(["label", "x"])["y"].mean().to_numpy()
        axis_scales.limit_positive(figure.axes[0], means)
    return figure


def changes(part: Found, title: str) -> Figure | None:
    """Draws the ratio of gradient norms after and before each mask update.

    Args:
      part: "steps" [m], "before" and "after" [seeds m] by variant.
      title: what was trained.
    """
    if not part:
        return None
    rises = {}
    for name, entry in part.items():
        with np.errstate(divide="ignore", invalid="ignore"):  # norms of dead networks
            ratio = np.log10(np.divide(entry["after"], entry["before"]))
        finite = np.where(np.isfinite(ratio), ratio, np.nan)
        rises[name] = pd.DataFrame(finite, columns=entry["steps"])
    titles = [f"{LABELS[name]} (n = {len(rise)})" for name, rise in rises.items()]
    figure, panels = plot_style.panels(
        titles,
        x=plot_style.STEP,
        y="norm after / before",
        title=f"{title}: geometric mean over n seeds",
    )
    panels[0].yaxis.set_major_formatter(lambda power, _: f"{10.0**power:,.3g}")
    blue, red = (style._replace(marker="") for style in plot_style.STYLES[:2])
    handles = {}
    for axes, rise in zip(panels, rises.values(), strict=True):
        name = "at each mask update"
        rows = lines(rise.columns, rise, label=name)
        handles |= plot_style.draw_lines(axes, rows, {name: blue}, x="x", y="y")
        mean = rise.mean()
        window = max(3, 2 * (len(mean) // 12) + 1)
        smooth = mean.rolling(window, center=True, min_periods=1).mean()
        (line,) = axes.plot(smooth.index, smooth, color=red.color, linewidth=1.8)
        handles["running mean"] = line
        handles["no change"] = axes.axhline(0, color="black", linewidth=0.9, zorder=1)
    plot_style.legend_below(figure, handles, columns=3)
    return figure


def interpolations(part: Found, title: str) -> Figure | None:
    """Draws loss and error on the interpolation from networks to the pruned solution.

    Args:
      part: by start, "variant", "moment", "alphas" [m], "loss" [seeds m], "error"
        [seeds m] in percent, and "examples".
      title: what was trained.
    """
    if not part:
        return None
    rows = [
        lines(
            *(entry["alphas"], entry[measure]),
            panel=panel,
            label=published.label_group(f"{entry['variant']} {entry['moment']}"),
        )
        for measure, panel in (("loss", "loss"), ("error", "error (%)"))
        for entry in part.values()
    ]
    table, examples = pd.concat(rows), next(iter(part.values()))["examples"]
    figure = plot_curves.interpolations(
        table,
        title=f"{title}, on {examples:,} training examples",
        x="from a network, at 0, to the pruned solution, at 1",
        y="",
        share_y=False,
    )
    losses = table.loc[table["panel"] == "loss", "y"]
    if figure is not None and (losses > 0).any():
        figure.axes[0].set_yscale("log")
    return figure


_MAPPED = ("prune", "lt", "lt_150", "scratch", "scratch_plus", "rigl", "rigl_plus")


def solution_map(part: Found, title: str) -> Figure | None:
    """Draws solutions as points, at about their distances from each other.

    Args:
      part: by variant, random projections [seeds p] of solutions at its "start" and
        "end", from which distances are estimated. Groups that differ in their moment
        share color and marker, hollow at the start; the first is the pruned solution.
      title: what was trained.
    """
    groups, points = [], []
    for name in _MAPPED:
        for moment in ("end",) if name == "prune" else ("start", "end"):
            rows = part.get(name, {}).get(moment, [])
            groups += [f"{name} {moment}"] * len(rows)
            points += rows
    if len(set(groups)) < 2 or not groups[0].startswith("prune"):
        return None
    matrix = np.linalg.norm(
        np.asarray(points)[:, None] - np.asarray(points)[None], axis=-1
    )
    found = embedding.mds(matrix, key=jax.random.key(0))
    table = pd.DataFrame(np.asarray(found.points), columns=["x", "y"])
    table["group"] = groups
    families = table["group"].str.partition(" ")[0]
    looks = plot_style.styles(list(families.iloc[1:].unique()))
    stress = float(found.relative_stress)
    figure, grid = plot_style.subplots(
        size=(8, 7),
        title=f"{title}\ndistances between solutions, relative stress {stress:.2g}",
    )
    axes, handles = grid[0, 0], {}
    for group, rows in table.groupby("group", sort=False):
        first = group == table["group"][0]
        look = looks.get(str(group).partition(" ")[0])
        color = "black" if first else look.color
        (drawn,) = axes.plot(
            *(rows["x"], rows["y"]),
            linestyle="none",
            marker="*" if first else look.marker,
            markersize=15 if first else 8,
            markeredgecolor=color,
            markerfacecolor="none" if group.endswith(" start") else color,
            alpha=0.85,
            zorder=4 if first else 3,
        )
        handles[f"{published.label_group(group)} (n = {len(rows)})"] = drawn
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel="first coordinate (L2 distance)", ylabel="second coordinate")
    plot_style.legend_below(figure, handles, columns=3)
    return figure


def signal(part: Found, title: str) -> Figure | None:
    """Draws the standard deviation of signals in each layer, by initialization.

    Args:
      part: by initialization, "layers" ([seeds] by name), "neurons" (by name) and
        "output" [seeds].
      title: what was trained.
    """
    if not part:
        return None
    labels = {
        name: f"{_SIGNALS[name]}, output {np.mean(entry['output']):.2g} "
        f"(n = {len(entry['output'])})"
        for name, entry in part.items()
    }
    looks = plot_style.styles(list(labels.values()))
    each = {"layers": [], "neurons": []}
    for name, entry in part.items():
        for kind, rows in each.items():
            rows += [
                {"label": labels[name], "layer": layer, "sd": value}
                for layer, values in entry[kind].items()
                for value in values
            ]
    layers, neurons = (pd.DataFrame(rows) for rows in each.values())
    figure, grid = plot_style.subplots(
        size=(11, 5.2), title=f"{title}: signals at initialization"
    )
    axes = grid[0, 0]
    order = list(layers["layer"].unique())
    look = {"x": "layer", "y": "sd", "hue": "label", "ax": axes, "legend": False}
    look |= {"order": order, "hue_order": list(looks), "dodge": True}
    look |= {"palette": [style.color for style in looks.values()]}
    alive = neurons.loc[neurons["sd"] > 0]
    sns.stripplot(alive, jitter=False, size=3, alpha=0.5, zorder=2, **look)
    for dots in axes.collections:
        dots.set_offsets(_spread(dots.get_offsets(), width=0.5 / len(looks)))
    sns.pointplot(
        layers,
        linestyle="none",
        errorbar="sd",
        capsize=0.05,
        markers=[style.marker for style in looks.values()],
        err_kws={"color": "black", "linewidth": 1.2},
        **(look | {"dodge": 0.8 - 0.8 / len(looks)}),
    )
    for place, (label, style) in enumerate(looks.items()):
        zero = neurons.loc[(neurons["label"] == label) & (neurons["sd"] == 0), "layer"]
        beside = 0.8 * ((place + 0.5) / len(looks) - 0.5)
        at = pd.Index([order.index(layer) + beside for layer in zero.unique()])
        axis_scales.mark_zeros(axes, at, color=style.color)
    axes.axhline(1, color=plot_style.GREY, linewidth=0.9, zorder=1)
    axes.set_yscale("log")
    axes.set(xlabel="layer", ylabel="standard deviation")
    handles = {
        label: Line2D([], [], color=style.color, marker=style.marker, linestyle="none")
        for label, style in looks.items()
    }
    plot_style.legend_below(figure, handles, columns=2)
    return figure


def _spread(points: np.ndarray, *, width: float) -> np.ndarray:
    """Moves points of one column apart, the same in every rendering.

    seaborn's jitter is random. Multiples of the golden ratio never coincide, so that
    points with similar values are apart.
    """
    x, y = np.asarray(points).T
    rank = np.argsort(np.argsort(y))
    return np.stack([x + width * ((rank * 0.618034) % 1 - 0.5), y], axis=1)
