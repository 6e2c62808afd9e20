"""Tables: the results of lottery-ticket runs, level by level.

Every number is a mean over replicates with its sample standard deviation (n - 1 in the
denominator), which a single replicate does not have. The tables contain numbers only:
`formatting` turns them into text and `figures` draws them.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxsparse.reports import records, settings
from jaxsparse.reports.records import RunRecords
from jaxsparse.stages import TICKET

DENSE_CONTINUED = "dense_continued"
ALL_LAYERS = "all layers"
# In the order in which tables and figures show them.
VARIANTS = (
    TICKET,
    "reinitialized",
    "shuffled_layers",
    "shuffled_globally",
    "random_mask",
    DENSE_CONTINUED,
    "random_magnitudes",
    "random_signs",
    "random_weights",
)


def summarize(
    table: pd.DataFrame,
    by: Sequence[str],
    measures: Sequence[str],
    *,
    means: Sequence[str] = (),
) -> pd.DataFrame:
    """Computes means and sample standard deviations over the rows of each group.

    Args:
      table: one row for each replicate.
      by: columns that define the groups; the order of first occurrence is kept.
      measures: columns to summarize; the first one is counted.
      means: columns of which only the mean is computed.

    Returns:
      The columns `by`; `n`, the number of values of the first measure; the columns
      `means`; and each measure with its standard deviation `<measure>_sd`.

    Examples:
      >>> table = pd.DataFrame({"level": [0, 0, 1], "loss": [1.0, 3.0, 5.0]})
      >>> summarize(table, ["level"], ["loss"])
         level  n  loss   loss_sd
      0      0  2   2.0  1.414214
      1      1  1   5.0       NaN
    """
    spec = {"n": (measures[0], "count")} | {name: (name, "mean") for name in means}
    for name in measures:
        spec |= {name: (name, "mean"), f"{name}_sd": (name, "std")}
    groups = table.groupby(list(by), sort=False, dropna=False)
    return groups.agg(**spec).reset_index()


def in_percent(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Returns all level records, with densities and accuracies in percent.

    Args:
      runs: runs whose level records are used.

    Returns:
      One row for each variant, level and replicate: the columns of
      `records.frame(runs, "level")`, with `weights_remaining` (percent) in place of
      `density`. If a run predicts next tokens, there is a column `test_perplexity`,
      which is NaN for other runs.
    """
    levels = records.frame(runs, "level")
    levels = levels.rename(columns={"density": "weights_remaining"})
    names = ["weights_remaining", "test_accuracy", "early_stop_test_accuracy"]
    levels = levels.assign(**{name: 100 * levels[name] for name in names})
    of_tokens = [run.name for run in runs if settings.predicts_tokens(run)]
    if of_tokens:
        losses = levels["test_loss"].where(levels["run"].isin(of_tokens))
        levels["test_perplexity"] = np.exp(losses)
    return levels


def levels_table(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Summarizes every level of every variant over its replicates.

    Args:
      runs: runs whose level records are used.

    Returns:
      One row for each run, variant and level, sorted by them: `n` (replicates),
      `weights_remaining` and accuracies in percent, `early_stop_step` in updates, and
      `test_perplexity` as in `in_percent`; each measure is a mean with its standard
      deviation in the column `<measure>_sd`.
    """
    measures = ["test_accuracy", "early_stop_step", "early_stop_test_accuracy"]
    by = ["run", "variant", "level"]
    levels = in_percent(runs)
    measures += [name for name in ("test_perplexity",) if name in levels]
    table = summarize(levels, by, measures, means=["weights_remaining"])
    return _in_order(table, runs, "variant")


def paired_table(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Compares the ticket with each control, replicate by replicate.

    Replicate r of a control shares its seeds with replicate r of the ticket, so the
    standard deviation of the differences excludes the variation common to both.

    Args:
      runs: runs whose level records are used.

    Returns:
      One row for each run, control and level: `weights_remaining` of the ticket in
      percent, `n` pairs, `difference` (test accuracy of the ticket minus that of the
      control) in percentage points, and its standard deviation `difference_sd`.
    """
    levels = in_percent(runs)
    key = ["run", "level", "replicate"]
    ticket = levels.loc[levels["variant"] == TICKET]
    ticket = ticket[[*key, "weights_remaining", "test_accuracy"]]
    control = levels.loc[levels["variant"] != TICKET]
    control = control[[*key, "variant", "test_accuracy"]]
    pairs = control.merge(ticket, on=key, suffixes=("_control", ""))
    pairs["difference"] = pairs["test_accuracy"] - pairs["test_accuracy_control"]
    pairs = pairs.rename(columns={"variant": "control"})
    by = ["run", "control", "level"]
    table = summarize(pairs, by, ["difference"], means=["weights_remaining"])
    return _in_order(table, runs, "control")


def layers_table(run: RunRecords) -> pd.DataFrame:
    """Computes the fraction of each layer that the tickets of one run keep.

    Args:
      run: run whose level records of the ticket are used.

    Returns:
      One row for each level, indexed by it: "all layers", then each layer in the order
      of the records; percent of its weights, mean over replicates.
    """
    levels = records.frame([run], "level")
    tickets = levels.loc[levels["variant"] == TICKET]
    return layer_fractions(tickets, "level")


def layer_fractions(counts: pd.DataFrame, by: str) -> pd.DataFrame:
    """Averages the fraction of each layer that remains, over replicates.

    Args:
      counts: records with the columns `kept`, `total` and `layers`, which maps the name
        of each layer to its weights that remain and all its weights.
      by: column that indexes the result, such as "level" or "step".

    Returns:
      One row for each value of `by`: "all layers" and each layer, in percent.
    """
    rows = [
        {by: place, ALL_LAYERS: 100 * kept / total}
        | {name: 100 * part / whole for name, (part, whole) in layers.items()}
        for place, kept, total, layers in zip(
            *(counts[name] for name in (by, "kept", "total", "layers")), strict=True
        )
    ]
    table = pd.DataFrame(rows, columns=None if rows else [by, ALL_LAYERS])
    return table.groupby(by).mean()


def _in_order(
    table: pd.DataFrame, runs: Sequence[RunRecords], variant: str
) -> pd.DataFrame:
    """Sorts rows by run as given, by variant as in `VARIANTS`, and by level."""
    others = sorted(set(table[variant]) - set(VARIANTS))
    ranks = {
        "run": {run.name: rank for rank, run in enumerate(runs)},
        variant: {name: rank for rank, name in enumerate([*VARIANTS, *others])},
    }
    return table.sort_values(
        ["run", variant, "level"],
        key=lambda column: column.map(ranks.get(column.name, lambda level: level)),
        ignore_index=True,
    )
