"""Run reader: the records of a study's runs, and the states with which they ended."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.studies import launcher
from experiments.studies.runs import Run
from jaxsparse import config as config_lib
from jaxsparse import factory, metrics_log, transforms
from jaxsparse.analysis.similarity import Solution
from jaxsparse.runner import old_runs

Row = Mapping[str, Any]


class Reader:
    """A run that has ended; checkpoints and data are opened when they are needed."""

    def __init__(
        self, workdir: Path, data_dir: str, like: "Reader | None" = None
    ) -> None:
        """Reads the records.

        Args:
          workdir: run directory.
          data_dir: directory of prepared datasets; "" for the one in the config.
          like: a run that trained on the same examples, which are read only once.
        """
        self.workdir, self.data_dir, self.like = workdir, data_dir, like
        self.rows = metrics_log.read(workdir / "metrics.jsonl")

    def of_kind(self, kind: str, **fields: Any) -> list[Row]:
        """Returns the records of a kind whose fields have these values.

        Args:
          kind: kind of record, as in `jaxsparse.reports.records`.
          **fields: values of fields.
        """
        return [
            row
            for row in self.rows
            if row["kind"] == kind
            and all(row.get(name) == value for name, value in fields.items())
        ]

    @functools.cached_property
    def config(self) -> Mapping[str, Any]:
        """The config."""
        return config_lib.renames.read(self.workdir / "config.json")

    @property
    def interpolation(self) -> list[int]:
        """Points and training examples of the interpolation between copies."""
        fields = self.config["instability"]
        return [fields["points"], fields["examples"]]

    @functools.cached_property
    def run(self) -> factory.TrainedRun:
        """The run with its data."""
        data = self.like.run.dataset if self.like else None
        return factory.open_run(self.workdir, data_dir=self.data_dir, dataset=data)

    def hashes(self, names: Sequence[str]) -> dict[str, str | None]:
        """Returns the recorded hashes of checkpoints, without opening them.

        Args:
          names: names of the checkpoints.
        """
        folder = self.workdir / "checkpoints"
        return {name: old_runs.recorded_hash(folder, name) for name in names}

    def state(self, name: str) -> Any:
        """Loads a checkpoint.

        Args:
          name: name of the checkpoint.

        Raises:
          ValueError: if it is lost; the message contains the remedy.
        """
        try:
            return factory.load_state(self.run, name)
        except ValueError as error:
            raise ValueError(
                f"{error}; move {self.workdir} away, and the same command trains it "
                "again"
            ) from error

    def solutions(self, name: str) -> list[Solution]:
        """Returns weights and masks of every replicate of a checkpoint.

        Args:
          name: name of the checkpoint.
        """
        state = self.state(name)
        held = (state.params, transforms.get_masks(state.opt_state))
        count = len(jax.tree.leaves(state.params)[0])
        return [
            Solution(*jax.tree.map(lambda leaf, r=r: leaf[r], held))
            for r in range(count)
        ]


def ended(runs: Sequence[Run], folder: Path, data_dir: str) -> dict[str, Reader]:
    """Opens the runs of one network that have ended, by name.

    Args:
      runs: runs on the same examples.
      folder: directory of all runs.
      data_dir: directory of prepared datasets; "" for the one in the configs.
    """
    found: dict[str, Reader] = {}
    for run in runs:
        if launcher.has_ended(run, folder / run.name):
            like = next(iter(found.values()), None)
            found[run.name] = Reader(folder / run.name, data_dir, like)
    return found


def table(
    rows: Sequence[Row], by: str, measure: Callable[[Row], float]
) -> tuple[list[int], np.ndarray]:
    """Arranges a measure of records by replicate and by a field, such as "level".

    Args:
      rows: records with a replicate.
      by: the field.
      measure: computes the measure of a record.

    Returns:
      The values of the field, rising; and the measure [replicates values], NaN where
      there is none. Of several records of one replicate and value, such as pairs of
      copies, it is the mean.
    """
    places = sorted({row[by] for row in rows})
    seeds = 1 + max((row["replicate"] for row in rows), default=-1)
    found: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        found.setdefault((row["replicate"], row[by]), []).append(measure(row))
    values = np.full((seeds, len(places)), np.nan)
    for (seed, place), each in found.items():
        values[seed, places.index(place)] = np.mean(each)
    return places, values
