"""Records: what run directories contain, as data frames.

`read_runs` reads run directories and `frame` makes one row of each record of a kind.
The tables of a report are computed from these frames in `tables`, `methods` and
`stability`.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from jaxsparse import config as config_lib
from jaxsparse import metrics_log, old_names, stages

Record = dict[str, Any]
PACKED = "packed.npz"  # file of a packed checkpoint

_WHERE = ("run", "stage", "level", "variant")
_SCORES = ("validation_loss", "validation_accuracy", "test_loss", "test_accuracy")
COLUMNS = {
    "train": (
        *(*_WHERE, "replicate", "step", "epoch"),
        *("loss", "accuracy", "learning_rate"),
    ),
    "eval": (*_WHERE, "replicate", "step", "epoch", *_SCORES),
    "level": (
        *(*_WHERE, "replicate", "kept", "total", "density", "effective_params"),
        *("layers", "start_step", "step", *_SCORES, "early_stop_step"),
        *("early_stop_validation_loss", "early_stop_test_accuracy"),
    ),
    "mask_stats": (
        *(*_WHERE, "replicate", "step", "epoch", "kept", "total", "ever_active"),
        *("skipped_updates", "layers"),
    ),
    "flops": (
        *(*_WHERE, "replicate", "step", "params", "dense_params"),
        *("inference_flops", "dense_inference_flops", "inference_multiple"),
        *("stage_training_flops", "training_flops", "dense_training_flops"),
        *("training_multiple", "interpolated"),
    ),
    "timing": (
        *(*_WHERE, "seconds", "steps_per_second", "programs", "compile_seconds"),
        *("peak_device_bytes", "peak_host_bytes"),
    ),
}
# A run that was killed and resumed may repeat a record; the last one is kept.
_UNIQUE = {
    "train": ["run", "stage", "replicate", "step"],
    "eval": ["run", "stage", "replicate", "step"],
    "level": ["run", "variant", "level", "replicate"],
    "mask_stats": ["run", "stage", "replicate", "step"],
    "flops": ["run", "stage", "replicate"],
}
_NOT_FLOAT = {"run", "stage", "variant", "level", "replicate", "layers"}


class RunRecords(NamedTuple):
    """The content of one run directory.

    Attributes:
      name: name of the directory, or its path where two directories share a name.
      config: configuration of the experiment; nested.
      environment: versions, devices, commit and command; empty if not recorded.
      records: the measurements, in the order in which they were written.
      ended: whether all stages of the run have ended.
      failed: for each replicate with a non-finite loss (`config.run.on_nonfinite`), the
        stage and update where it occurred; its records are left out.
    """

    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    records: list[Record]
    ended: bool = False
    failed: tuple[str, ...] = ()


def read_runs(directories: Sequence[str | os.PathLike[str]]) -> list[RunRecords]:
    """Reads run directories.

    Args:
      directories: run directories; each must contain a `config.json`.

    Returns:
      One entry for each directory, in the order given, with distinct names.

    Raises:
      ValueError: if there is no directory, one is given twice, one is not a run, or a
        file cannot be read as what it should be.
    """
    paths = [Path(directory) for directory in directories]
    resolved = [path.resolve() for path in paths]
    if not paths or len(set(resolved)) < len(paths):
        raise ValueError(
            "run directories: expected one or more, each once, got "
            f"{[str(path) for path in paths]}; name each run once"
        )
    names = [path.name for path in resolved]
    return [
        _read_run(path, name if names.count(name) == 1 else str(path))
        for path, name in zip(paths, names, strict=True)
    ]


def _read_run(folder: Path, name: str) -> RunRecords:
    """Reads one run directory."""
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder}: not a run; expected a directory with the config.json that "
            "training writes, got none; give the run directory itself"
        )
    path = folder / "environment.json"
    environment = metrics_log.read_object(path) if path.is_file() else {}
    config = config_lib.renames.read(folder / "config.json")
    rows = metrics_log.read(folder / "metrics.jsonl", fields=("kind", "stage"))
    failures = [row for row in rows if row["kind"] == "failed"]
    broken = {
        (row["stage"], row.get("replicate"))
        for row in rows
        if row["kind"] == "failed" or row.get("failed")
    }
    return RunRecords(
        name,
        config=config,
        environment=environment | _checkpoints(folder / "checkpoints"),
        records=[r for r in rows if (r["stage"], r.get("replicate")) not in broken],
        ended=_has_ended(old_names.find_file(folder, "stages.json"), config),
        failed=tuple(
            f"replicate {row['replicate']} in {row['stage']}, by update {row['step']}"
            for row in failures
        ),
    )


def _checkpoints(folder: Path) -> dict[str, str]:
    """Returns how much space the checkpoints take now; {} if there are none."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    packed = sum(path.name == PACKED for path in files)
    many = f", {packed} of them packed" if packed else ""
    count = sum(path.suffix == ".json" for path in folder.rglob("*.json"))
    return {"checkpoints": f"{size:,} bytes in {count}{many}"} if files else {}


def _has_ended(path: Path, config: dict[str, Any]) -> bool:
    """Returns whether the finished stages include the last level of the config."""
    try:
        ends = json.loads(path.read_bytes())
    except (OSError, ValueError):  # missing or damaged: the records show the progress
        return False
    levels = (config.get("lottery") or {}).get("levels", 0)
    last = stages.last_ends(levels)
    return isinstance(ends, list) and not set(last).isdisjoint(ends)


def frame(runs: Sequence[RunRecords], kind: str) -> pd.DataFrame:
    """Makes a data frame of all records of one kind.

    Args:
      runs: runs whose records are used.
      kind: a key of `COLUMNS`.

    Returns:
      One row for each record, with the columns `run` and `COLUMNS[kind]`; null is NaN,
      and fractions stay fractions. Of records of the same moment only the last is kept.
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
