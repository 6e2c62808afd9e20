"""Report figures: which figures a report shows, and the names of their files.

`figures`, `method_figures` and `stability` draw. This module leaves out figures without
records, and those without content: a curve over levels for a run that trains once, or
the history of layers for masks that do not change.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from jaxsparse.reports import (
    figures,
    flop_costs,
    method_figures,
    method_names,
    methods,
    records,
    settings,
    stability,
    tables,
)
from jaxsparse.reports.records import RunRecords
from jaxsparse.stages import TICKET

CAPTIONS = {
    "sparsity": "Test accuracy against sparsity, one line for each method.",
    "methods": "Test accuracy of each method, one panel for each sparsity.",
    "flops": "Test accuracy against the FLOPs of training, in multiples of dense.",
    "exploration": "Weights that were active at some step so far, by step.",
    "densities": "Weights remaining in each layer at the end, by method.",
    "comparison": "Test accuracy of the tickets of all runs against weights remaining.",
    "accuracy": "Test accuracy after training against weights remaining.",
    "perplexity": "Test perplexity after training against weights remaining.",
    "early_stop": "Step of the lowest validation loss against weights remaining.",
    "layers": "Weights remaining in each layer of the ticket, by level.",
    "curves": "Training of the tickets at a few levels.",
    "training": "Accuracy or perplexity, and loss, during training.",
    "history": "Weights in each layer, by step.",
    "onset": "Instability between copies, by the update at which they start.",
    "instability": (
        "Instability between copies of a level, and rise of the test error between a "
        "level and the one before, against weights remaining."
    ),
    "interpolation": (
        "Test error on the linear interpolation of two copies, by the update at which "
        "they start."
    ),
}


def file_name(name: str, place: int, count: int) -> str:
    """Names a run's figure by the place of the run, whose name may be any string.

    Args:
      name: a key of `CAPTIONS`.
      place: place of the run in the report, from 0.
      count: how many runs the report has.
    """
    return name if count == 1 else f"run{place + 1}_{name}"


def draw(runs: Sequence[RunRecords]) -> dict[str, Figure]:
    """Draws the figures of each run, by the names of their files.

    Args:
      runs: all runs of the report.
    """
    drawn = {}
    for place, run in enumerate(runs):
        if method_names.trains_once(run):
            by_name = _of_training(run, alone=len(runs) == 1)
        else:
            by_name = _of_levels(run)
        by_name |= stability.draw(run)
        for name, figure in by_name.items():
            drawn[file_name(name, place, len(runs))] = figure
    return drawn


def compare(runs: Sequence[RunRecords]) -> dict[str, Figure]:
    """Draws the comparison of several runs, by name; {} for a single run.

    Args:
      runs: runs that may be compared.
    """
    if len(runs) < 2:
        return {}
    drawn = _of_flops(runs)
    in_levels = [run for run in runs if not method_names.trains_once(run)]
    if any(method_names.is_sparse(run) for run in runs):
        drawn |= _of_methods(runs)
        # Runs that train once would be single points among lines over levels.
        runs = in_levels if len(in_levels) > 1 else []
    levels = tables.in_percent(runs)
    if in_levels and (levels["variant"] == TICKET).any():
        drawn["comparison"] = figures.comparison(
            levels, labels=method_names.of_runs(runs), title=settings.title(runs)
        )
    return drawn


def _of_flops(runs: Sequence[RunRecords]) -> dict[str, Figure]:
    """Draws accuracy against training FLOPs, if they are known."""
    figure = flop_costs.by_training(runs, title=settings.title(runs))
    return {} if figure is None else {"flops": figure}


def _of_methods(runs: Sequence[RunRecords]) -> dict[str, Figure]:
    """Draws the comparison of methods of sparse training."""
    drawn, title = {}, settings.title(runs)
    table = methods.methods_table(runs)
    pruned = [run for run in runs if settings.is_pruned(run)]
    sparsities = methods.sparsities_table(pruned)
    if (sparsities.groupby("label")["sparsity"].nunique() > 1).any():
        dense = table.loc[method_figures.is_dense_reference(table)]
        drawn["sparsity"] = method_figures.by_sparsity(sparsities, dense, title=title)
    if table["test_accuracy"].notna().any():
        drawn["methods"] = method_figures.methods(table, title=title)
    explored = methods.exploration_table(runs)
    if len(explored):
        drawn["exploration"] = method_figures.exploration(explored, title=title)
    kept = methods.densities_table(runs)
    if len(kept):
        by_name = method_names.of_runs(runs)
        names = [by_name[name] for name in kept.index]
        drawn["densities"] = method_figures.densities(kept, names=names, title=title)
    return drawn


def _of_training(run: RunRecords, *, alone: bool) -> dict[str, Figure]:
    """Draws the figures of one run that trains once."""
    drawn, title = {}, settings.title([run])
    explored = methods.exploration_table([run])
    if alone and len(explored):
        drawn["exploration"] = method_figures.exploration(explored, title=title)
    history = methods.history_table(run)
    if (history.nunique() > 1).any():
        drawn["history"] = figures.layer_lines(
            history,
            x="step (optimizer updates)",
            y="weights in the layer (%)",
            title=title,
        )
    if _has_trained(run):
        drawn["training"] = figures.curves(run, title=title)
    return drawn


def _of_levels(run: RunRecords) -> dict[str, Figure]:
    """Draws the figures of one run that prunes level by level."""
    drawn, title = _of_flops([run]), settings.title([run])
    levels, layers = tables.in_percent([run]), tables.layers_table(run)
    if levels["test_accuracy"].notna().any():
        drawn["accuracy"] = figures.accuracy(levels, title=title)
    if settings.predicts_tokens(run) and levels["test_perplexity"].notna().any():
        drawn["perplexity"] = figures.perplexity(levels, title=title)
    if levels["early_stop_step"].notna().any():
        drawn["early_stop"] = figures.early_stop(levels, title=title)
    if len(layers):
        drawn["layers"] = figures.layers(layers, title=title)
    if _has_trained(run):
        drawn["curves"] = figures.curves(run, title=title)
    return drawn


def _has_trained(run: RunRecords) -> bool:
    """Returns whether there is a record of the training of a ticket."""
    return bool((records.frame([run], "train")["variant"] == TICKET).any())
