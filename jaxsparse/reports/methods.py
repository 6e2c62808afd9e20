"""Methods: what sparse training came to, one row a run.

A run stands for one method: what its config's section "sparse" names, dense training
if that names none, or the whole lottery, which is judged by its last level's ticket.
`tables` has the lottery's levels one by one. As there, everything stays a number, means
and sample deviations are over replicates, and a single replicate has no deviation.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from jaxsparse.reports import method_names, tables
from jaxsparse.reports.tables import ALL_LAYERS, RunRecords

COLUMNS = (
    *("label", "run", "sparsity", "kept", "total", "n"),
    *("test_accuracy", "test_accuracy_sd", "effective_sparsity", "explored"),
)


def methods_table(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Says what each run came to.

    Args:
      runs: whose level records; of a lottery the last level's ticket.

    Returns:
      One row a run that has finished, from dense to sparse, and by falling accuracy
      among runs of the same sparsity: `label` (from `labels.series`); `run`;
      `sparsity`, percent of the prunable weights without which the run ended; `kept`
      and `total`, in weights; `n` (replicates); `test_accuracy` in percent and its
      deviation `test_accuracy_sd`;
      `effective_sparsity`, percent of weights on no path from input to output, masked
      ones included; `explored`, percent of weights that were active at some time. All
      are means; what was not recorded is NaN.
    """
    called = method_names.series(runs)
    rows = [row for run in runs for row in _method_rows(run, called[run.name])]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    # Before sorting: an empty table has no types of its own.
    table = table.assign(group=sparsity_groups(table["sparsity"].astype(float)))
    table = table.sort_values(
        ["group", "test_accuracy"], ascending=[True, False], kind="stable"
    )
    return table.drop(columns="group").reset_index(drop=True)


def _method_rows(run: RunRecords, label: str) -> list[dict[str, Any]]:
    """Makes the one row of a run; none if it has not finished a level."""
    levels = tables.frame([run], "level")
    tickets = levels.loc[levels["arm"] == tables.TICKET]
    last = tickets.loc[tickets["level"] == tickets["level"].max()]
    if last.empty:
        return []
    counts = _last_counts(run, level=int(last["level"].iloc[0]))
    accuracy = 100 * last["test_accuracy"]
    row = {
        "label": label,
        "run": run.name,
        "sparsity": 100 * (1 - last["kept"] / last["total"]).mean(),
        "kept": last["kept"].mean(),
        "total": last["total"].mean(),
        "n": int(accuracy.count()),
        "test_accuracy": accuracy.mean(),
        "test_accuracy_sd": accuracy.std(),
        "effective_sparsity": 100 * (1 - last["live"] / last["total"]).mean(),
        "explored": counts["explored"].mean(),
    }
    return [row]


def sparsities_table(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Says what each method came to at each sparsity.

    Args:
      runs: whose level records; of a lottery the tickets of all levels.

    Returns:
      One row a method and sparsity, methods in the order given and each from dense to
      sparse: `label` (from `labels.series`), `sparsity` in percent, `n` (replicates),
      `test_accuracy` in percent and its deviation `test_accuracy_sd`.
    """
    called = method_names.series(runs)
    levels = tables.frame(runs, "level")
    levels = levels.loc[levels["arm"] == tables.TICKET]
    last = levels.groupby("run")["level"].transform("max")
    whole = {run.name for run in runs if not method_names.trains_once(run)}
    levels = levels.loc[(levels["level"] == last) | levels["run"].isin(whole)]
    levels = levels.assign(
        label=levels["run"].map(called),
        sparsity=100 * (1 - levels["kept"] / levels["total"]),
        test_accuracy=100 * levels["test_accuracy"],
    )
    # A run's replicates may differ by a few weights.
    levels["sparsity"] = levels.groupby(["run", "level"])["sparsity"].transform("mean")
    table = levels.groupby(["label", "run", "level"], sort=False).agg(
        sparsity=("sparsity", "mean"),
        n=("test_accuracy", "count"),
        test_accuracy=("test_accuracy", "mean"),
        test_accuracy_sd=("test_accuracy", "std"),
    )
    table = table.reset_index()
    rank = {label: place for place, label in enumerate(dict.fromkeys(called.values()))}
    return table.sort_values(
        ["label", "sparsity"],
        key=lambda column: column.map(rank) if column.name == "label" else column,
        ignore_index=True,
    )[["label", "sparsity", "n", "test_accuracy", "test_accuracy_sd"]]


def _last_counts(run: RunRecords, *, level: int) -> pd.DataFrame:
    """Returns the last record of masks of each replicate's ticket at a level."""
    counts = _counts([run])
    counts = counts.loc[counts["level"] == level]
    return counts.drop_duplicates("replicate", keep="last")


def _counts(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Returns the records of masks of tickets, step by step, with `explored`.

    Only methods that regrow remember which weights they ever held: NaN for others.
    """
    counts = tables.frame(runs, "masks")
    counts = counts.loc[counts["arm"] == tables.TICKET]
    counts = counts.sort_values("step", kind="stable")
    return counts.assign(explored=100 * counts["ever_active"] / counts["total"])


def sparsity_groups(sparsities: pd.Series) -> pd.Series:
    """Numbers the groups of runs that are of the same sparsity.

    Args:
      sparsities: in percent. They are the same if they differ by 0.1 points at most;
        above 98 %, by at most a twentieth of the weights kept.

    Returns:
      The group of each, from 0 for the densest, under the index that came.
    """
    first, number, groups = -math.inf, -1, {}
    for place, value in sparsities.sort_values().items():
        if not value - first <= min(0.1, 0.05 * (100 - first)) + 1e-9:
            first, number = value, number + 1
        groups[place] = number
    return pd.Series(groups, dtype=int).reindex(sparsities.index)


def exploration_table(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Says how much of the network had been active by each evaluation.

    Args:
      runs: whose records of masks; runs with masks that never change have none.

    Returns:
      One row a run and step, runs in the order given: `label` (from
      `labels.of_runs`), `run`, `step`, `n`, and percent of the prunable weights that
      were active at some time, as `explored` and its deviation `explored_sd`; none
      where that is not known.
    """
    counts = _counts(runs).dropna(subset="explored")
    table = counts.groupby(["run", "step"], sort=False)["explored"]
    table = table.agg(["count", "mean", "std"]).reset_index()
    table.columns = ["run", "step", "n", "explored", "explored_sd"]
    called = method_names.of_runs(runs)
    table.insert(0, "label", table["run"].map(called))
    rank = {name: place for place, name in enumerate(called)}
    return table.sort_values(
        ["run", "step"],
        key=lambda column: column.map(rank) if column.name == "run" else column,
        ignore_index=True,
    )


def densities_table(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Says how much of each layer each method kept.

    Args:
      runs: whose level records; of a lottery the last level's ticket.

    Returns:
      One row a run that ended sparse, under its name and in the order of
      `methods_table`: "all layers", then each layer in the network's order; percent of
      its weights, mean over replicates; NaN for layers that a run does not have.
    """
    by_name = {run.name: run for run in runs}
    rows = {
        name: tables.layers_table(by_name[name]).iloc[-1]
        for name in methods_table(runs)["run"]
    }
    sparse = {name: row for name, row in rows.items() if row[ALL_LAYERS] < 100}
    return _in_network_order(pd.DataFrame(sparse).T)


def history_table(run: RunRecords) -> pd.DataFrame:
    """Says how much of each layer one run had at each evaluation.

    Args:
      run: whose records of masks.

    Returns:
      One row a step, indexed by it, with the columns of `densities_table`.
    """
    counts = _counts([run])
    rows = [
        {"step": step, ALL_LAYERS: 100 * kept / total}
        | {name: 100 * part / whole for name, (part, whole) in layers.items()}
        for step, kept, total, layers in zip(
            *(counts[name] for name in ("step", "kept", "total", "layers")),
            strict=True,
        )
    ]
    table = pd.DataFrame(rows, columns=None if rows else ["step", ALL_LAYERS])
    return _in_network_order(table.groupby("step").mean())


def _in_network_order(table: pd.DataFrame) -> pd.DataFrame:
    """Sorts the columns that are layers, after the one of all of them."""
    return table.reindex(columns=[ALL_LAYERS, *network_order(table.columns)])


def network_order(names: Iterable[str]) -> list[str]:
    """Sorts the names of layers from input to output.

    Records have them in the order of the parameters' tree, which is the alphabet's.

    Args:
      names: such as "conv10/kernel"; that of all layers is left out.

    Returns:
      Numbers in order of size, and the head last, as all networks of the package have
      it.

    Examples:
      >>> network_order(["conv10/kernel", "conv2/kernel", "head/kernel", "stage1"])
      ['conv2/kernel', 'conv10/kernel', 'stage1', 'head/kernel']
    """

    def place(name: str) -> tuple[bool, list[tuple[int, str]]]:
        parts = re.split(r"(\d+)", name)
        sizes = [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
        return name.split("/")[0] == "head", sizes

    return sorted((name for name in names if name != ALL_LAYERS), key=place)
