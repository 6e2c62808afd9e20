"""Gallery: which figures a report shows, and under which names.

`figures` and `method_figures` draw; here it is decided what there are records for, and
what would say nothing: no curve over levels for a run that trains once, no densities
over steps for masks that stay as they are. `page` shows what comes of it.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from jaxsparse.reports import (
    figures,
    method_figures,
    method_names,
    methods,
    settings,
    stability,
    tables,
)
from jaxsparse.reports.tables import RunRecords

CAPTIONS = {
    "sparsity": "Test accuracy against sparsity, one line a method.",
    "methods": "Test accuracy of each method, with all that end equally sparse.",
    "exploration": "Weights that were active at some time, by step.",
    "densities": "Weights remaining in each layer at the end, by method.",
    "comparison": "Test accuracy of the tickets of all runs against weights remaining.",
    "accuracy": "Test accuracy after training against weights remaining.",
    "early_stop": "Step of the least validation loss against weights remaining.",
    "layers": "Weights remaining in each layer of the ticket, by level.",
    "curves": "Training of the tickets at a few levels.",
    "training": "Accuracy and loss in training.",
    "history": "Weights in each layer, by step.",
    "onset": "Instability between children, by the update at which they begin.",
    "instability": (
        "Instability between children of a level, and how far the test error rises "
        "between a level and the one before, against weights remaining."
    ),
    "segments": "Test error between two children, by the update at which they begin.",
}


def draw(runs: Sequence[RunRecords]) -> dict[str, Figure]:
    """Draws the figures of each of some runs, by the name of their files."""
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


def file_name(name: str, place: int, count: int) -> str:
    """Names a run's figure; by the run's place, as its name may be any string."""
    return name if count == 1 else f"run{place + 1}_{name}"


def compare(runs: Sequence[RunRecords]) -> dict[str, Figure]:
    """Draws what several runs have in common, by name; one run has none of that."""
    if len(runs) < 2:
        return {}
    drawn = {}
    in_levels = [run for run in runs if not method_names.trains_once(run)]
    if any(method_names.is_sparse(run) for run in runs):
        drawn = _of_methods(runs)
        # Methods are points here: the lines of lotteries are left to each other.
        runs = in_levels if len(in_levels) > 1 else []
    levels = tables.levels_table(runs)
    if in_levels and (levels["arm"] == tables.TICKET).any():
        drawn["comparison"] = figures.comparison(
            levels, called=method_names.of_runs(runs), title=settings.title(runs)
        )
    return drawn


def _of_methods(runs: Sequence[RunRecords]) -> dict[str, Figure]:
    """Draws how methods of sparse training compare."""
    drawn, title = {}, settings.title(runs)
    table = methods.methods_table(runs)
    pruned = [run for run in runs if settings.is_pruned(run)]
    sparsities = methods.sparsities_table(pruned)
    if (sparsities["label"].value_counts() > 1).any():
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
        called = [by_name[name] for name in kept.index]
        drawn["densities"] = method_figures.densities(kept, called=called, title=title)
    return drawn


def _of_training(run: RunRecords, *, alone: bool) -> dict[str, Figure]:
    """Draws the figures of one run that trains once."""
    drawn = {}
    explored = methods.exploration_table([run])
    if alone and len(explored):
        drawn["exploration"] = method_figures.exploration(
            explored, title=settings.title([run])
        )
    kept = methods.history_table(run)
    if (kept.nunique() > 1).any():
        drawn["history"] = method_figures.history(kept, title=settings.title([run]))
    if _has_trained(run):
        drawn["training"] = figures.curves(run, title=settings.title([run]))
    return drawn


def _of_levels(run: RunRecords) -> dict[str, Figure]:
    """Draws the figures of one run that prunes level by level."""
    table = tables.levels_table([run])
    layers = tables.layers_table(run)
    drawn = {}
    if table["test_accuracy"].notna().any():
        drawn["accuracy"] = figures.accuracy(table, title=settings.title([run]))
    if table["early_stop_step"].notna().any():
        drawn["early_stop"] = figures.early_stop(table, title=settings.title([run]))
    if len(layers):
        drawn["layers"] = figures.layers(layers, title=settings.title([run]))
    if _has_trained(run):
        drawn["curves"] = figures.curves(run, title=settings.title([run]))
    return drawn


def _has_trained(run: RunRecords) -> bool:
    """Says whether there is a record of the ticket in training."""
    return not tables.frame([run], "train").query("arm == 'ticket'").empty
