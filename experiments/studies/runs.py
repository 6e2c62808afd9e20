"""Runs: one run of a study, as a recipe and the fields that differ; without JAX."""

import functools
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxsparse.config import kept


class Scoring(NamedTuple):
    """Scores of the training examples that a run computes at its end.

    Attributes:
      score: the score, see `experiments/score_data.py`.
      out: file to write, relative to the directory of the study.
      options: fields of `scoring.Options` that differ from their defaults.
    """

    score: str
    out: str
    options: dict[str, Any] = {}  # noqa: RUF012 -- of an immutable tuple


class Run(NamedTuple):
    """A run of a study.

    Attributes:
      name: its run directory within that of the study.
      config: recipe, FILE or FILE:PRESET; FILE is configs/NAME.py, or the absolute
        path of a file elsewhere.
      overrides: fields of the config by dotted name, as on the command line.
      scoring: scores of the training examples that other runs read.
      part: 1 for the runs that a study needs first, 2 and 3 for what adds to them.
    """

    name: str
    config: str
    overrides: dict[str, Any]
    scoring: tuple[Scoring, ...] = ()
    part: int = 1


def flags(overrides: dict[str, Any]) -> list[str]:
    """Formats overrides as command-line flags.

    Args:
      overrides: values by the names of fields, such as `training.duration`.
    """
    return [f"--config.{name}={value}" for name, value in overrides.items()]


def read(run: Run) -> ConfigDict:
    """Makes the config of a run, as its command line does.

    Args:
      run: the run.

    Raises:
      ValueError: if a file outside the project fails or has no `get_config`.
    """
    path, _, preset = run.config.partition(":")
    if Path(path).is_absolute():
        c = _execute(Path(path)).get_config(preset)
    else:
        c = importlib.import_module(f"configs.{Path(path).stem}").get_config(preset)
    c.update_from_flattened_dict(run.overrides)
    return c


def command(run: Run, folder: Path, data_dir: str) -> list[str]:
    """Returns the command that trains a run in a process of its own.

    Args:
      run: the run.
      folder: directory of all runs.
      data_dir: directory of prepared datasets; "" for the one in the config.
    """
    where = {"data.dir": str(Path(data_dir).resolve())} if data_dir else {}
    return [
        sys.executable,
        str(Path(__file__).resolve().parent.parent / "train.py"),
        f"--config={run.config}",
        *flags(run.overrides | where),
        "--noreport",
        f"--workdir={folder / run.name}",
    ]


def needs(run: Run, others: Sequence[Run]) -> list[Run]:
    """Lists the runs of a study that a run starts from.

    Args:
      run: the run.
      others: all runs of the study.

    Returns:
      The runs whose weights, masks, dense networks or scores it reads.
    """
    c = read(run)
    paths = [c.warm_start.run, c.warm_start.masks_run]
    paths += [c.lottery.get("dense_run"), c.pretraining.scores]
    wanted = {path.removeprefix("../") for path in paths if path}
    return [
        other
        for other in others
        if wanted & {other.name, *(scoring.out for scoring in other.scoring)}
    ]


@functools.cache
def _execute(path: Path) -> ModuleType:
    """Executes a config file, once, because it may register scores or methods."""
    try:
        module = kept.import_file(path, str(path))
    except Exception as error:  # a config is a program, and may fail in any way
        raise ValueError(
            f"--config: {path} cannot be run: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, "get_config"):
        raise ValueError(
            f"--config: expected get_config(preset) in {path}, got none; write one"
        )
    return module
