"""One run of a study: a recipe and what differs from it; needs no JAX."""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict


class Run(NamedTuple):
    """A run of a study.

    Attributes:
      name: its work folder within that of the study.
      config: recipe, FILE or FILE:VARIANT.
      overrides: fields of the config by dotted name, as on the command line.
      scores: of the training examples, made when it has ended: by name of the score,
        the file, relative to the study's folder.
      scoring: further flags for `score_data.py`.
    """

    name: str
    config: str
    overrides: dict[str, Any]
    scores: dict[str, str] = {}  # noqa: RUF012 -- of an immutable tuple
    scoring: tuple[str, ...] = ()


def flags(overrides: dict[str, Any]) -> list[str]:
    """Words overrides as command-line flags."""
    return [f"--config.{name}={value}" for name, value in overrides.items()]


def read(run: Run) -> ConfigDict:
    """Makes the config of a run, as its command line would."""
    path, _, variant = run.config.partition(":")
    module = importlib.import_module(f"configs.{Path(path).stem}")
    c = module.get_config(variant)
    c.update_from_flattened_dict(run.overrides)
    return c
