"""Methods: the results of sparse training, one row for each run.

A run stands for one method: the one in the section "sparse" of its config, dense
training if there is none, or iterative pruning, which is represented by the ticket of
its last level. `tables` has all levels of lottery-ticket runs. As there, every number
is a mean over replicates with its sample standard deviation.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from jaxsparse.reports import flop_costs, method_names, records, tables
from jaxsparse.reports.records import RunRecords
from jaxsparse.reports.tables import ALL_LAYERS
from jaxsparse.stages import TICKET

COLUMNS = (
    *("label", "run", "sparsity", "kept", "total", "n"),
    *("test_accuracy", "test_accuracy_sd", "effective_sparsity", "explored"),
    *("early_stop_step", "early_stop_step_sd"),
    *("early_stop_test_accuracy", "early_stop_test_accuracy_sd"),
    *("training_multiple", "inference_multiple"),
)
_ORDER = (*COLUMNS, "test_perplexity", "test_perplexity_sd")


def methods_table(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Tabulates the result of each run.

    Args:
      runs: runs whose level records are used; of a lottery-ticket run, the ticket of
        the last level.

    Returns:
      One row for each run that has finished, sorted from dense to sparse and, among
      runs of the same sparsity, by falling accuracy. All numbers are means, and NaN if
      they were not recorded:

      - `label`: name of the method, from `method_names.series`; `run`;
      - `sparsity`: percent of the prunable weights that are masked at the end; `kept`
        and `total`, in weights;
      - `n` (replicates), `test_accuracy` in percent and its `test_accuracy_sd`;
      - `effective_sparsity`: percent of the weights that are masked or on no path from
        input to output; `explored`: percent of the weights that were active at some
        step;
      - `early_stop_step`, the update of the lowest validation loss, and the accuracy
        there in percent, each with its standard deviation;
      - `training_multiple` and `inference_multiple`: FLOPs as multiples of those of the
        dense network;
      - `test_perplexity` and `test_perplexity_sd`, if a run predicts next tokens.
    """
    labels = method_names.series(runs)
    rows = [_method_row(run, labels[run.name]) for run in runs if len(_ends([run]))]
    columns = {*COLUMNS, *(name for row in rows for name in row)}
    table = pd.DataFrame(rows, columns=sorted(columns, key=_ORDER.index))
    # Before sorting: an empty table has no types of its own.
    table = table.assign(group=sparsity_groups(table["sparsity"].astype(float)))
    table = table.sort_values(
        ["group", "test_accuracy"], ascending=[True, False], kind="stable"
    )
    return table.drop(columns="group").reset_index(drop=True)


def _method_row(run: RunRecords, label: str) -> dict[str, Any]:
    """Makes the row of a run in `methods_table`."""
    last = _ends([run])
    counts = _last_counts(run, level=int(last["level"].iloc[0]))
    accuracy = last["test_accuracy"]
    kept, effective = last["kept"], last["effective_params"]
    costs = flop_costs.means_table([run]).reset_index()
    costs = costs.loc[costs["level"] == last["level"].iloc[0]]
    perplexity = {}
    if "test_perplexity" in last:
        values = last["test_perplexity"]
        perplexity = {"test_perplexity": values.mean()}
        perplexity["test_perplexity_sd"] = values.std()
    return {
        "label": label,
        "run": run.name,
        "sparsity": 100 * (1 - kept / last["total"]).mean(),
        "kept": kept.mean(),
        "total": last["total"].mean(),
        "n": int(accuracy.count()),
        "test_accuracy": accuracy.mean(),
        "test_accuracy_sd": accuracy.std(),
        "effective_sparsity": 100 * (1 - effective / last["total"]).mean(),
        "explored": counts["explored"].mean(),
        "early_stop_step": last["early_stop_step"].mean(),
        "early_stop_step_sd": last["early_stop_step"].std(),
        "early_stop_test_accuracy": last["early_stop_test_accuracy"].mean(),
        "early_stop_test_accuracy_sd": last["early_stop_test_accuracy"].std(),
        "training_multiple": costs["training_multiple"].mean(),
        "inference_multiple": costs["inference_multiple"].mean(),
        **perplexity,
    }


def _tickets(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Returns the level records of tickets, with sparsities in percent."""
    levels = tables.in_percent(runs)
    levels = levels.loc[levels["variant"] == TICKET]
    return levels.assign(sparsity=100 * (1 - levels["kept"] / levels["total"]))


def _ends(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Returns the records of the last level of each run."""
    levels = _tickets(runs)
    return levels.loc[
        levels["level"] == levels.groupby("run")["level"].transform("max")
    ]


def sparsities_table(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Returns the test accuracy of every replicate by method and sparsity.

    Args:
      runs: runs whose level records are used; of lottery-ticket runs, the tickets of
        all levels.

    Returns:
      One row for each method, sparsity and replicate, methods in the order given and
      each from dense to sparse: `label` (from `method_names.series`), `sparsity` and
      `test_accuracy` in percent.
    """
    labels = method_names.series(runs)
    levels, ends = _tickets(runs), _ends(runs)
    whole = {run.name for run in runs if not method_names.trains_once(run)}
    levels = levels.loc[levels["run"].isin(whole) | levels.index.isin(ends.index)]
    levels = levels.assign(label=levels["run"].map(labels))
    # The replicates of a run may differ by a few weights.
    mean = levels.groupby(["run", "level"])["sparsity"].transform("mean")
    rank = {label: place for place, label in enumerate(dict.fromkeys(labels.values()))}
    return levels.assign(sparsity=mean).sort_values(
        ["label", "sparsity"],
        key=lambda column: column.map(rank) if column.name == "label" else column,
        kind="stable",
        ignore_index=True,
    )[["label", "sparsity", "test_accuracy"]]


def _last_counts(run: RunRecords, *, level: int) -> pd.DataFrame:
    """Returns the last mask statistics of each replicate's ticket at a level."""
    counts = _counts([run])
    counts = counts.loc[counts["level"] == level]
    return counts.drop_duplicates("replicate", keep="last")


def _counts(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Returns the mask statistics of tickets, step by step, with `explored` in percent.

    Only methods that regrow weights record which were ever active: NaN for others.
    """
    counts = records.frame(runs, "mask_stats")
    counts = counts.loc[counts["variant"] == TICKET]
    counts = counts.sort_values("step", kind="stable")
    return counts.assign(explored=100 * counts["ever_active"] / counts["total"])


def sparsity_groups(sparsities: pd.Series) -> pd.Series:
    """Numbers the groups of runs that have the same sparsity.

    Args:
      sparsities: in percent. They count as the same if they differ by at most 0.1
        points; above 98 %, by at most a twentieth of the weights that remain.

    Returns:
      The group of each, from 0 for the densest, with the same index.
    """
    first, number, groups = -math.inf, -1, {}
    for place, value in sparsities.sort_values().items():
        if not value - first <= min(0.1, 0.05 * (100 - first)) + 1e-9:
            first, number = value, number + 1
        groups[place] = number
    return pd.Series(groups, dtype=int).reindex(sparsities.index)


def exploration_table(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Returns the fraction of weights that had been active by each evaluation.

    Args:
      runs: runs whose mask statistics are used; runs without mask updates have none.

    Returns:
      One row for each run, step and replicate, runs in the order given: `label` (from
      `method_names.of_runs`), `run`, `replicate`, `step`, and `explored`, percent of
      the prunable weights that were active at some step so far.
    """
    counts = _counts(runs).dropna(subset="explored")
    labels = method_names.of_runs(runs)
    rank = {name: place for place, name in enumerate(labels)}
    table = counts.assign(label=counts["run"].map(labels)).sort_values(
        ["run", "step"],
        key=lambda column: column.map(rank) if column.name == "run" else column,
        kind="stable",
        ignore_index=True,
    )
    return table[["label", "run", "replicate", "step", "explored"]]


def densities_table(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Computes the fraction of each layer that each method keeps at the end.

    Args:
      runs: runs whose level records are used; of a lottery-ticket run, the ticket of
        the last level.

    Returns:
      One row for each run that ended sparse, indexed by its name, in the order of
      `methods_table`: "all layers", then each layer in the order of the network;
      percent of its weights, mean over replicates; NaN for layers a run does not have.
    """
    by_name = {run.name: run for run in runs}
    rows = {
        name: tables.layers_table(by_name[name]).iloc[-1]
        for name in methods_table(runs)["run"]
    }
    sparse = {name: row for name, row in rows.items() if row[ALL_LAYERS] < 100}
    return _in_network_order(pd.DataFrame(sparse).T)


def history_table(run: RunRecords) -> pd.DataFrame:
    """Computes the fraction of each layer that one run has at each evaluation.

    Args:
      run: run whose mask statistics are used.

    Returns:
      One row for each step, indexed by it, with the columns of `densities_table`.
    """
    return _in_network_order(tables.layer_fractions(_counts([run]), "step"))


def _in_network_order(table: pd.DataFrame) -> pd.DataFrame:
    """Sorts the columns of layers, after that of all layers."""
    return table.reindex(columns=[ALL_LAYERS, *network_order(table.columns)])


def network_order(names: Iterable[str]) -> list[str]:
    """Sorts the names of layers from input to output.

    Records have them in alphabetical order, which is that of the parameter tree.

    Args:
      names: names such as "conv10/kernel"; "all layers" is left out.

    Returns:
      The names, with numbers compared as numbers and the head last, as in all networks
      of this package.

    Examples:
      >>> network_order(["conv10/kernel", "conv2/kernel", "head/kernel", "stage1"])
      ['conv2/kernel', 'conv10/kernel', 'stage1', 'head/kernel']
    """

    def place(name: str) -> tuple[bool, list[tuple[int, str]]]:
        parts = re.split(r"(\d+)", name)
        sizes = [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
        return name.split("/")[0] == "head", sizes

    return sorted((name for name in names if name != ALL_LAYERS), key=place)
