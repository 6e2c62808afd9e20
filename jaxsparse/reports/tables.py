"""Tables: what a run's records say, as data frames.

`read_runs` reads work folders, `frame` makes one row of each record, and the
`*_table` functions summarise over replicates: always the mean and the sample
standard deviation (n - 1 in the denominator), which a single replicate does not
have. Everything stays a number: `text` makes words of it, `figures` draws it.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from jaxsparse import config as config_lib
from jaxsparse import metrics_log

TICKET = "ticket"
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
)

_WHERE = ("run", "stage", "level", "arm")
_SCORES = ("validation_loss", "validation_accuracy", "test_loss", "test_accuracy")
_EARLY = ("early_stop_step", "early_stop_validation_loss", "early_stop_test_accuracy")
_TRAIN = ("step", "epoch", "loss", "accuracy", "learning_rate")
_LEVEL = ("kept", "total", "weights_remaining", "live", "layers", "start_step", "step")
_MASKS = (
    *("step", "epoch", "kept", "total", "ever_active", "skipped_updates", "layers"),
)
COLUMNS = {
    "train": (*_WHERE, "replicate", *_TRAIN),
    "eval": (*_WHERE, "replicate", "step", "epoch", *_SCORES),
    "level": (*_WHERE, "replicate", *_LEVEL, *_SCORES, *_EARLY),
    "masks": (*_WHERE, "replicate", *_MASKS),
    "time": (
        *(*_WHERE, "seconds", "steps_per_second", "programs", "compile_seconds"),
        *("peak_device_bytes", "peak_host_bytes"),
    ),
}
# A relaunched run may say the same thing twice; the last word counts.
_UNIQUE = {
    "train": ["run", "stage", "replicate", "step"],
    "eval": ["run", "stage", "replicate", "step"],
    "level": ["run", "arm", "level", "replicate"],
    "masks": ["run", "stage", "replicate", "step"],
}
_NOT_FLOAT = {"run", "stage", "arm", "level", "replicate", "layers"}


class RunRecords(NamedTuple):
    """What one work folder holds.

    Attributes:
      name: the folder's name, or its path where two folders share a name.
      config: the experiment's configuration; nested.
      environment: versions, devices, commit and command; empty if not recorded.
      records: the measurements, in the order they were written.
      ended: whether the folder says that all its stages have ended.
      failed: of each broken replicate (`config.run.on_nonfinite`), where its loss
        ceased to be finite; its records are left out.
    """

    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    records: list[dict[str, Any]]
    ended: bool = False
    failed: tuple[str, ...] = ()


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> list[RunRecords]:
    """Reads work folders.

    Args:
      folders: work folders; each must hold a `config.json`.

    Returns:
      One run a folder, in the order given, with names that differ.

    Raises:
      ValueError: if there is no folder, one is given twice, one is not a run, or a
        file of one cannot be read as what it should be.
    """
    paths = [Path(folder) for folder in folders]
    resolved = [path.resolve() for path in paths]
    if not paths or len(set(resolved)) < len(paths):
        raise ValueError(
            f"folders: got {[str(path) for path in paths]}, wanted one or more work "
            "folders, each once; name them"
        )
    names = [path.name for path in resolved]
    return [
        _read_run(path, name if names.count(name) == 1 else str(path))
        for path, name in zip(paths, names, strict=True)
    ]


def _read_run(folder: Path, name: str) -> RunRecords:
    """Reads one work folder."""
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder}: not a run; wanted a folder with a config.json, as training "
            "writes it; give the work folder itself"
        )
    environment = folder / "environment.json"
    config = config_lib.renames.with_new_names(_read_object(folder / "config.json"))
    rows = metrics_log.read(folder / "metrics.jsonl", fields=("kind", "stage"))
    broken = {
        (row["stage"], row.get("replicate"))
        for row in rows
        if row["kind"] == "failed" or row.get("failed")
    }
    return RunRecords(
        name,
        config=config,
        environment=_read_object(environment) if environment.is_file() else {},
        records=[r for r in rows if (r["stage"], r.get("replicate")) not in broken],
        ended=_has_ended(folder / "ended.json", config),
        failed=tuple(
            f"replicate {row['replicate']} in {row['stage']}, by update {row['step']}"
            for row in rows
            if row["kind"] == "failed"
        ),
    )


def _has_ended(path: Path, config: dict[str, Any]) -> bool:
    """Says whether the stages on file are those of as many levels as the config has."""
    try:
        ends = json.loads(path.read_bytes())
    except (OSError, ValueError):  # none, or damaged: records tell how far the run is
        return False
    levels = (config.get("lottery") or {}).get("levels", 0)
    # A run without pruning rounds has the stage "train", or that of an older version.
    last = {f"level_{levels:02d}/{TICKET}/last", *(() if levels else ("train/last",))}
    return isinstance(ends, list) and not last.isdisjoint(ends)


def _read_object(path: Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); restore or remove it") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: got a JSON {type(content).__name__}, wanted an object; restore "
            "or remove it"
        )
    return content


def frame(runs: Sequence[RunRecords], kind: str) -> pd.DataFrame:
    """Makes a data frame of all records of one kind.

    Args:
      runs: whose records.
      kind: "train", "eval", "level", "masks" or "time".

    Returns:
      One row a record with the columns `COLUMNS[kind]`; null is NaN, fractions stay
      fractions. Of records about the same moment only the last is kept.
    """
    rows = [
        {**record, "run": run.name}
        for run in runs
        for record in run.records
        if record.get("kind") == kind
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS[kind]))
    floats = [name for name in table.columns if name not in _NOT_FLOAT]
    table = table.astype(dict.fromkeys(floats, float))
    if kind in _UNIQUE:
        table = table.drop_duplicates(_UNIQUE[kind], keep="last")
    return table.reset_index(drop=True)


def levels_table(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Summarises every level of every arm over its replicates.

    Args:
      runs: whose level records.

    Returns:
      One row a run, arm and level, by arm and then level: `n` (replicates),
      `weights_remaining` and accuracies in percent, `early_stop_step` in updates;
      each measure is a mean, with its deviation in the column `<measure>_sd`.
    """
    levels = _in_percent(frame(runs, "level"))
    measures = ["test_accuracy", "early_stop_step", "early_stop_test_accuracy"]
    spec = {"n": ("test_accuracy", "count")}
    spec["weights_remaining"] = ("weights_remaining", "mean")
    for name in measures:
        spec[name] = (name, "mean")
        spec[f"{name}_sd"] = (name, "std")
    table = levels.groupby(["run", "arm", "level"], sort=False).agg(**spec)
    return _in_order(table.reset_index(), runs, "arm")


def paired_table(runs: Sequence[RunRecords]) -> pd.DataFrame:
    """Compares the ticket with each control, replicate by replicate.

    Replicate r of a control shares its seeds with replicate r of the ticket, so the
    deviation of the differences is free of what the two have in common.

    Args:
      runs: whose level records.

    Returns:
      One row a run, control and level: `weights_remaining` of the ticket in percent,
      `n` pairs, `difference` (test accuracy of the ticket minus that of the control)
      in percentage points and its deviation `difference_sd`.
    """
    levels = _in_percent(frame(runs, "level"))
    key = ["run", "level", "replicate"]
    ticket = levels.loc[levels["arm"] == TICKET]
    ticket = ticket[[*key, "weights_remaining", "test_accuracy"]]
    control = levels.loc[levels["arm"] != TICKET, [*key, "arm", "test_accuracy"]]
    pairs = control.merge(ticket, on=key, suffixes=("_control", ""))
    pairs["difference"] = pairs["test_accuracy"] - pairs["test_accuracy_control"]
    table = pairs.groupby(["run", "arm", "level"], sort=False).agg(
        weights_remaining=("weights_remaining", "mean"),
        n=("difference", "count"),
        difference=("difference", "mean"),
        difference_sd=("difference", "std"),
    )
    table = table.reset_index().rename(columns={"arm": "control"})
    return _in_order(table, runs, "control")


def layers_table(run: RunRecords) -> pd.DataFrame:
    """Says how much of each layer the tickets of one run keep.

    Args:
      run: whose level records of the ticket.

    Returns:
      One row a level, indexed by it: "all layers", then each layer in the network's
      order; percent of its weights, mean over replicates.
    """
    levels = frame([run], "level")
    tickets = levels.loc[levels["arm"] == TICKET]
    rows = [
        {"level": level, ALL_LAYERS: 100 * remaining}
        | {name: 100 * kept / total for name, (kept, total) in layers.items()}
        for level, remaining, layers in zip(
            tickets["level"],
            tickets["weights_remaining"],
            tickets["layers"],
            strict=True,
        )
    ]
    table = pd.DataFrame(rows, columns=None if rows else ["level", ALL_LAYERS])
    return table.groupby("level").mean()


def _in_percent(levels: pd.DataFrame) -> pd.DataFrame:
    """Turns the fractions of level records into percentages."""
    names = ["weights_remaining", "test_accuracy", "early_stop_test_accuracy"]
    return levels.assign(**{name: 100 * levels[name] for name in names})


def _in_order(
    table: pd.DataFrame, runs: Sequence[RunRecords], variant: str
) -> pd.DataFrame:
    """Sorts rows by run as given, arm as in `ARMS` (strangers last), and level."""
    run_names = [run.name for run in runs]
    strangers = sorted(set(table[variant]) - set(VARIANTS))
    ranks = {
        "run": {name: rank for rank, name in enumerate(run_names)},
        variant: {name: rank for rank, name in enumerate([*VARIANTS, *strangers])},
    }
    return table.sort_values(
        ["run", variant, "level"],
        key=lambda column: column.map(ranks.get(column.name, lambda level: level)),
        ignore_index=True,
    )
