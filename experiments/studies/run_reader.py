"""Run reader: the state of a study's runs, their records, and their final weights."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.studies.runs import Run, read
from jaxsparse import config as config_lib
from jaxsparse import factory, metrics_log, replicates, stages, transforms
from jaxsparse.analysis.similarity import Solution
from jaxsparse.runner import records as run_records
from jaxsparse.training import checkpoints, environment

Row = Mapping[str, Any]
ENDED = "ended"


class Reader:
    """A run that has ended; checkpoints and data are opened when they are needed."""

    def __init__(self, run: Run, folder: Path, data_dir: str) -> None:
        """Reads the records.

        Args:
          run: the run.
          folder: directory of all runs of the study.
          data_dir: directory of prepared datasets; "" for the one in the config.
        """
        self.name, self.workdir, self.data_dir = run.name, folder / run.name, data_dir
        self.rows = metrics_log.read(self.workdir / "metrics.jsonl")

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

    def tickets(self, kind: str = "level") -> list[Row]:
        """Returns the records of a kind of the tickets of all levels.

        A run of ordinary training has one level, which is its only network.

        Args:
          kind: kind of record.
        """
        return self.of_kind(kind, variant=stages.TICKET)

    def last(self, kind: str = "level") -> list[Row]:
        """Returns the records of a kind of the last level, by rising replicate.

        Args:
          kind: kind of record.
        """
        level = max(row["level"] for row in self.tickets())
        rows = (row for row in self.tickets(kind) if row["level"] == level)
        return sorted(rows, key=lambda row: row["replicate"])

    def levels(self) -> dict[str, Any]:
        """Reads the tickets of all levels, and the length of their training.

        Returns:
          "levels"; "remaining", the percentage of weights of each level, averaged over
          seeds; "ticket", test accuracies in percent [seeds levels]; "rewind", "steps"
          and "epochs", the steps and epochs at which the last level starts and ends;
          and "interpolation", from `interpolation`.
        """
        rows = self.tickets()
        levels, ticket = table(rows, "level", accuracy)
        _, remaining = table(rows, "level", lambda row: 100 * row["density"])
        return {
            "levels": levels,
            "remaining": remaining.mean(axis=0).tolist(),
            "ticket": ticket.tolist(),
            "rewind": rows[-1]["start_step"],
            "steps": max(row["step"] for row in rows),
            "epochs": max(row["epoch"] for row in rows),
            "interpolation": self.interpolation,
        }

    def curve(self) -> tuple[list[int], list[list[float]]]:
        """Reads the test accuracies of the last level over training.

        Returns:
          Steps, and accuracies in percent by seed and step.
        """
        steps, values = table(self.last("eval"), "step", accuracy)
        return steps, values.tolist()

    @property
    def interpolation(self) -> list[int]:
        """Points and training examples of the interpolation between copies."""
        fields = self.config["instability"]
        return [fields["points"], fields["examples"]]

    @functools.cached_property
    def run(self) -> factory.TrainedRun:
        """The run with its data."""
        return factory.open_run(self.workdir, data_dir=self.data_dir)

    def end(self, level: int = 0) -> str:
        """Returns the name of the final checkpoint of a level.

        Args:
          level: the level; 0 is dense training, and the only level of a run that does
            not prune.
        """
        return stages.level_end(level, levels=self.config["lottery"]["levels"])

    def saved(self, step: int) -> str:
        """Returns the name of the checkpoint that level 0 saved for analyses.

        Args:
          step: training step of the state.
        """
        return stages.saved_state_name(stages.stage_name(self.end()), step)

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
        held = Solution(state.params, transforms.get_masks(state.opt_state))
        return replicates.split(held)

    def functions(self) -> factory.EvalFns:
        """Makes the functions that evaluate the network of the run."""
        stats = replicates.take(self.state(self.end()).batch_stats, 0)
        return factory.make_eval_fns(self.run.config, self.run.dataset, stats)


def accuracy(row: Row) -> float:
    """Returns the test accuracy of a record in percent.

    Args:
      row: a record with a test accuracy.
    """
    return 100 * row["test_accuracy"]


def has_ended(run: Run, workdir: Path) -> bool:
    """Returns whether a directory contains this run, trained to its end.

    Args:
      run: the run.
      workdir: its run directory. A run that started from another one has ended only as
        long as the other is unchanged.
    """
    return status(run, workdir) == ENDED


def status(run: Run, workdir: Path) -> str:
    """Returns "ended", or the reason why a run has not ended.

    Args:
      run: the run.
      workdir: its run directory.
    """
    try:
        saved = config_lib.renames.read(workdir / "config.json")
    except (OSError, ValueError) as error:
        if metrics_log.is_of_machine(error):
            raise
        return "not started"
    c = read(run)
    if any(True for _ in config_lib.differences(saved, json.loads(c.to_json()))):
        return "has other settings"
    began = environment.starts_from(workdir).get("checkpoints")
    if began is not None and began != factory.recorded_hashes(c, workdir):
        return "started from a run that has changed"
    levels = c.lottery.levels
    if run_records.has_ended(workdir, levels=levels) or _is_old_and_ended(c, workdir):
        return ENDED
    return "in progress"


def _is_old_and_ended(c: ConfigDict, workdir: Path) -> bool:
    """Returns whether a run of a version without a list of stages has ended."""
    last = stages.last_ends(c.lottery.levels)[-1]
    more = c.lottery.controls or c.instability.copies
    return not more and checkpoints.exists(workdir / "checkpoints", last)


def table(
    rows: Sequence[Row], by: str, measure: Callable[[Row], float | None]
) -> tuple[list[int], np.ndarray]:
    """Arranges a measure of records by replicate and by a field, such as "level".

    Args:
      rows: records with a replicate.
      by: the field.
      measure: computes the measure of a record; None where a number that was not finite
        was recorded as null.

    Returns:
      The values of the field, rising; and the measure [replicates values], NaN where
      there is none or it is None. Of several records of one replicate and value, such
      as pairs of copies, it is the mean.
    """
    places = sorted({row[by] for row in rows})
    seeds = 1 + max((row["replicate"] for row in rows), default=-1)
    found: dict[tuple[int, int], list[float | None]] = {}
    for row in rows:
        found.setdefault((row["replicate"], row[by]), []).append(measure(row))
    values = np.full((seeds, len(places)), np.nan)
    for (seed, place), each in found.items():
        # As floats, None is NaN.
        values[seed, places.index(place)] = np.mean(np.asarray(each, float))
    return places, values
