"""Records: the measurements of every run of a study, in small files that are kept.

The file of a run is written when the run has ended, and has no weights: pages and
verdicts are made from these files only, on any machine. A run with a file that fits its
recipe is not trained again, even where its run directory is lost. Files converted from
the tables of an earlier version lack measurements: pages read them, but they fit no
recipe, so that their runs are trained when the study is run.
"""

import collections
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.studies.runs import Run, needs, read
from jaxsparse import config, metrics_log

DIGITS = 7  # of every number, as many as float32 has
CONVERTED = "converted"  # in place of the hash in a converted file, equal to no hash


class Record(NamedTuple):
    """The measurements of a run.

    Attributes:
      recipe: hash of all that the measurements depend on, from `recipe`, or
        `CONVERTED`.
      measured: measurements by name, as JSON: numbers, nested lists by seed.
      networks: number of networks that were trained, over seeds, levels and copies.
      seconds: time that training them took.
      made_with: versions of JAX and jaxsparse, and the "device" and the "processor".
    """

    recipe: str
    measured: dict[str, Any]
    networks: int = 0
    seconds: float = 0.0
    made_with: dict[str, str] = {}  # noqa: RUF012 -- of an immutable tuple


def recipe(run: Run, others: Sequence[Run], version: int) -> str:
    """Hashes what the measurements of a run depend on.

    Args:
      run: the run.
      others: all runs of the study.
      version: version of the code that measures; see `study.Study`.

    Returns:
      The first 16 hexadecimal digits of a SHA-256 of the config, the scores that the
      run computes, the runs it starts from, and the version.
    """
    c = read(run)
    given = [
        config.digest(c),
        c.lottery.levels,
        [[one.score, dict(one.options)] for one in run.scoring],
        [recipe(need, others, version) for need in needs(run, others)],
        version,
    ]
    return hashlib.sha256(json.dumps(given).encode()).hexdigest()[:16]


def path_of(folder: Path, run: Run) -> Path:
    """Returns the file with the measurements of a run.

    Args:
      folder: directory of these files.
      run: the run.
    """
    return folder / f"{run.name}.json"


def load(path: Path) -> Record | None:
    """Reads the measurements of a run; None if the file is missing or damaged.

    Args:
      path: its file.

    Raises:
      OSError: if the machine cannot read it.
    """
    try:
        record = Record(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return record._replace(measured=_with_nan(record.measured))


def save(path: Path, record: Record) -> None:
    """Writes the measurements of a run.

    Args:
      path: its file.
      record: the measurements. NaN and infinity are written as null, which `load`
        reads as NaN.
    """
    text = json.dumps(_rounded(record._asdict()), separators=(",", ":"))
    metrics_log.write_atomically(path, text + "\n")


def load_all(folder: Path, runs: Sequence[Run], version: int) -> dict[str, Record]:
    """Reads the measurements that fit the recipes of their runs, by name of the run.

    Those that were converted from an earlier version are read too.

    Args:
      folder: directory of their files.
      runs: the runs of a study.
      version: version of the code that measures; see `study.Study`.
    """
    each = {run.name: (run, load(path_of(folder, run))) for run in runs}
    return {
        name: record
        for name, (run, record) in each.items()
        if record
        and (record.recipe == CONVERTED or record.recipe == recipe(run, runs, version))
    }


def describe(kept: Sequence[Record]) -> str:
    """Says how long the training of runs took, and on what; "" if that is unknown.

    Args:
      kept: their measurements.
    """
    known = [one for one in kept if one.networks and one.seconds]
    if not known:
        return ""
    hours = sum(one.seconds for one in known) / 3600
    each = [one.made_with for one in known]
    counts = collections.Counter(map(_device, each))
    devices = [
        name if len(counts) == 1 else f"{name} ({count} of the runs)"
        for name, count in counts.items()
    ]
    versions = dict.fromkeys(one["jax"] for one in each)
    part = "" if len(known) == len(kept) else f" of {len(known)} of these runs"
    return (
        f"Training the {sum(one.networks for one in known):,} networks{part} took "
        f"{hours:.1f} hours, summed over processes and without what was measured "
        f"afterward, on {', '.join(devices)} (JAX {', '.join(versions)})."
    )


def _device(made_with: dict[str, str]) -> str:
    """Returns the accelerator, or the name of the processor where it is known."""
    device = made_with["device"]
    return made_with.get("processor", "a CPU") if device == "cpu" else device


def _with_nan(value: Any) -> Any:
    """Replaces each None by NaN."""
    if isinstance(value, dict):
        return {key: _with_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_nan(each) for each in value]
    return math.nan if value is None else value


def _rounded(value: Any) -> Any:
    """Rounds all floats to `DIGITS` significant digits."""
    if isinstance(value, dict):
        return {str(key): _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
