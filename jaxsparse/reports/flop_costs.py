"""FLOPs of training and inference as multiples of the dense network, and a figure.

A record of kind "flops" has the numbers of one stage and replicate. Training is that of
all stages by which a network was found: of a lottery ticket, all levels up to its own.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxsparse.reports import (
    axis_scales,
    formatting,
    method_names,
    plot_style,
    records,
    tables,
)
from jaxsparse.reports.records import RunRecords
from jaxsparse.stages import TICKET

_KEY = ["run", "level", "replicate"]


def costs_table(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Tabulates accuracy and FLOPs of every ticket and replicate.

    Args:
      runs: runs whose records are used; those of older versions have none of FLOPs.

    Returns:
      One row for each run, level and replicate with a record of FLOPs: `label` (from
      `method_names.series`), `run`, `level`, `replicate`, `test_accuracy` in percent,
      `params`, and `training_multiple` and `inference_multiple` of dense; NaN where it
      is unknown. `interpolated` is 1 where the training FLOPs are not exact: the
      number of active weights was interpolated between mask updates, or the steps with
      a dense gradient are unknown.
    """
    counted = records.frame(runs, "flops")
    counted = counted.loc[counted["variant"] == TICKET]
    levels = tables.in_percent(runs)
    levels = levels.loc[levels["variant"] == TICKET, [*_KEY, "test_accuracy"]]
    table = counted.merge(levels, on=_KEY)
    labels = method_names.series(runs)
    columns = ["params", "training_multiple", "inference_multiple", "interpolated"]
    table = table.assign(label=table["run"].map(labels))
    return table[["label", *_KEY, "test_accuracy", *columns]]


def means_table(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Averages `costs_table` over replicates.

    Args:
      runs: runs whose records are used.

    Returns:
      Rows indexed by run and level.
    """
    table = costs_table(runs).drop(columns=["label", "replicate"])
    return table.groupby(["run", "level"], sort=False).mean()


def show(run: RunRecords) -> pd.DataFrame:
    """Formats the costs of one run, a row for each level; empty if none are known.

    Args:
      run: the run.
    """
    means = means_table([run]).reset_index()
    return pd.DataFrame(
        {
            "Level": [str(level) for level in means["level"]],
            "Parameters": [f"{count:,.0f}" for count in means["params"]],
            "Inference FLOPs (x dense)": formatting.multiples(
                means["inference_multiple"]
            ),
            "Training FLOPs (x dense)": [
                f"about {text}" if interpolated else text
                for text, interpolated in zip(
                    formatting.multiples(means["training_multiple"]),
                    means["interpolated"] > 0,
                    strict=True,
                )
            ],
        }
    )


def by_training(runs: Sequence[RunRecords], *, title: str) -> Figure | None:
    """Draws test accuracy against training FLOPs, one line for each method.

    Args:
      runs: runs that may be compared.
      title: what was trained.

    Returns:
      The figure; None if fewer than two networks have known FLOPs.
    """
    return draw(costs_table(runs), title=title)


def draw(table: pd.DataFrame, *, title: str) -> Figure | None:
    """Draws a table of costs.

    Args:
      table: one row for each network and replicate, with the columns `label`, `run`,
        `level`, `replicate`, `test_accuracy` in percent, and `training_multiple`.
      title: what was trained.

    Returns:
      The figure, with a logarithmic axis of multiples of dense training; None if fewer
      than two networks have known FLOPs.
    """
    table = table.dropna(subset=["test_accuracy", "training_multiple"])
    if len(table.drop_duplicates(["run", "level"])) < 2:
        return None
    means = table.groupby(["run", "level"])["training_multiple"].transform("mean")
    # Three digits, so that the labels of the axis are short.
    table = table.assign(training=[float(f"{value:.3g}") for value in means])
    looks = plot_style.styles(list(table["label"].unique()))
    labels = plot_style.count_labels(table, by="training")
    title = f"{title}: mean ± s.d. over n seeds"
    figure, grid = plot_style.subplots(size=(8, 5), title=title)
    axes = grid[0, 0]
    place = {"x": "training", "y": "test_accuracy"}
    lines = plot_style.draw_lines(axes, table, looks, **place, error="bars")
    axis_scales.scale_x(axes, "log", np.unique(table["training"]))
    axes.set(xlabel="training FLOPs (x dense)", ylabel="test accuracy (%)")
    handles = {labels[label]: line for label, line in lines.items()}
    columns = 2 if max(map(len, handles), default=0) <= 45 else 1
    plot_style.legend_below(figure, handles, columns=columns)
    return figure
