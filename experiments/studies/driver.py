"""Driver: trains and measures the runs of studies, in one process.

Runs are trained one after the other, those of part 1 of all studies first. When a run
has ended, its measurements are written to a file (see `records`); a run with such a
file is done. The driver stops at a checkpoint when it is told to, by SIGTERM or because
its time is up, and continues there the next time.
"""

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jaxlib
import numpy as np

import jaxsparse
from experiments import scoring
from experiments.benchmarks import environment
from experiments.studies import records, run_reader
from experiments.studies.records import Record
from experiments.studies.runs import Run, needs, read
from experiments.studies.study import Study
from jaxsparse import config
from jaxsparse import runs as runs_lib
from jaxsparse.data import datasets
from jaxsparse.training import preemption

PRECISION = "highest"  # of measurements, whatever the device uses by default
Errors = (ValueError, OSError, preemption.NonFiniteLoss, jax.errors.JaxRuntimeError)


class Places(NamedTuple):
    """Where the runs of one study and scale are.

    Attributes:
      runs: directory of the run directories.
      records: directory of the measurements.
      data_dir: directory of prepared datasets; "" for the one in the configs.
    """

    runs: Path
    records: Path
    data_dir: str


@dataclasses.dataclass(frozen=True, eq=False)  # compared by identity
class Task:
    """A run to be trained and measured.

    Attributes:
      study: its study.
      run: the run.
      others: all runs of the study at the same scale.
      places: where they are.
    """

    study: Study
    run: Run
    others: Sequence[Run]
    places: Places


def is_done(task: Task) -> bool:
    """Returns whether the measurements of a run are there and fit its recipe.

    Args:
      task: the run.
    """
    path = records.path_of(task.places.records, task.run)
    record = records.load(path)
    wanted = records.recipe(task.run, task.others, task.study.version)
    return record is not None and record.recipe == wanted


def in_order(tasks: Sequence[Task]) -> list[Task]:
    """Sorts tasks by part, and within a part takes one of each study in turns.

    Args:
      tasks: the tasks of each study in the order of its runs.
    """
    turns: dict[tuple[int, str], int] = {}
    placed = []
    for number, task in enumerate(tasks):
        key = (task.run.part, task.study.name)
        turns[key] = turns.get(key, -1) + 1
        placed.append(((task.run.part, turns[key], number), task))
    return [task for _, task in sorted(placed, key=lambda pair: pair[0])]


def check_data(runs: Sequence[Run], data_dir: str) -> None:
    """Checks that the datasets of all runs are prepared.

    Args:
      runs: the runs.
      data_dir: directory of prepared datasets; "" for the one in the configs.

    Raises:
      ValueError: if one is missing; the message names it.
    """
    wanted = {(c.data.name, data_dir or c.data.dir or "") for c in map(read, runs)}
    own = {spec.name for spec in config.DATASETS.own()}  # readers of users' own data
    for name, folder in sorted(wanted):
        if name not in own:
            datasets.check_there(name, data_dir=folder or None)


def run_all(tasks: Sequence[Task]) -> list[str]:
    """Trains and measures what is not done; after a failed run, the others still run.

    Args:
      tasks: the runs in the order in which they are begun.

    Returns:
      Names of the runs that failed.

    Raises:
      preemption.Preempted: if a signal stopped a run; everything is saved.
    """
    failed: list[str] = []
    pace = Pace(tasks)
    for task in tasks:
        if is_done(task):
            continue
        print(pace.describe(task), file=sys.stderr)
        try:
            complete(task)
            pace.add(task)
        except preemption.Preempted:
            print(f"stopped in {task.run.name}{pace.left_words()}", file=sys.stderr)
            raise
        except Errors as error:
            print(f"error: {task.run.name}: {error}", file=sys.stderr)
            failed.append(task.run.name)
        jax.clear_caches()  # programs of one run are of no use to the next
    return failed


def complete(task: Task) -> Record:
    """Trains a run and what it starts from, and writes its measurements.

    Args:
      task: the run.

    Returns:
      The measurements.
    """
    train(task.run, task.others, task.places)
    places = task.places

    def reader(run: Run) -> run_reader.Reader:
        return run_reader.Reader(run, places.runs, places.data_dir)

    with jax.default_matmul_precision(PRECISION):
        found = task.study.measure(
            reader(task.run), lambda name: reader(_named(name, task.others))
        )
    times = reader(task.run).of_kind("timing")
    record = Record(
        recipe=records.recipe(task.run, task.others, task.study.version),
        measured=found,
        networks=count_networks(task.run),
        seconds=sum(row["seconds"] for row in times),
        made_with={
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,
            "jaxsparse": jaxsparse.__version__,
            "device": jax.devices()[0].device_kind,
            "processor": environment.processor(),
        },
    )
    records.save(records.path_of(task.places.records, task.run), record)
    return record


def train(run: Run, others: Sequence[Run], places: Places) -> None:
    """Trains a run to its end, and computes the scores that others read.

    Args:
      run: the run.
      others: all runs of the study. Those that the run starts from are trained first if
        they have not ended or are lost.
      places: where they are.

    Raises:
      ValueError: if a run fails, or a file with scores is not of this run or its
        options.
    """
    folder = places.runs / run.name
    if not run_reader.has_ended(run, folder):
        for need in needs(run, others):
            train(need, others, places)
        c = read(run)
        if places.data_dir:
            c.data.dir = places.data_dir
        runs_lib.train(c, folder)
    for wanted in run.scoring:
        out = places.runs / wanted.out
        options = scoring.Options(**wanted.options)
        request = scoring.Request(folder, out, wanted.score, options, places.data_dir)
        if out.exists():
            scoring.check(request)  # not of other options, or of an earlier training
        else:
            scoring.save(request)


def _named(name: str, others: Sequence[Run]) -> Run:
    """Returns the run of a name."""
    return next(run for run in others if run.name == name)


def count_networks(run: Run) -> int:
    """Counts the networks that a run trains, over seeds, levels, controls and copies.

    Args:
      run: the run.
    """
    c = read(run)
    levels = c.lottery.levels
    at = c.lottery.control_levels or range(1, levels + 1)
    stages = 1 + levels - bool(c.lottery.get("dense_run"))
    stages += len(c.lottery.controls) * len(at)
    analyzed = c.instability
    stages += analyzed.copies * len(analyzed.start_steps) * len(analyzed.levels)
    return c.replicates * stages


class Pace:
    """The speed of training so far, from which the time that is left is estimated."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        """Counts what is done.

        Args:
          tasks: all runs.
        """
        self.total = len(tasks)
        self.left = {
            task: count_networks(task.run) for task in tasks if not is_done(task)
        }
        self.networks, self.seconds = 0, 0.0  # of runs that have ended
        self.began = time.monotonic()
        kept = [
            records.load(records.path_of(task.places.records, task.run))
            for task in tasks
            if task not in self.left
        ]
        self.earlier = [(one.networks, one.seconds) for one in kept if one]

    def describe(self, task: Task) -> str:
        """Describes a run that begins, what is done, and how long the rest takes.

        Args:
          task: the run.
        """
        done = self.total - len(self.left)
        words = f"[{done} of {self.total} done] {task.study.name}: {task.run.name}"
        return words + self.left_words()

    def left_words(self) -> str:
        """Says how long the rest takes, at the pace of this process.

        Until a run has ended in it, the recorded training times of finished runs are
        used; "" if there are none.
        """
        networks, seconds = self.networks, self.seconds
        if not networks:
            networks, seconds = np.sum([(0, 0.0), *self.earlier], axis=0)
        if not networks:
            return ""
        hours = sum(self.left.values()) * seconds / networks / 3600
        return f"; about {hours:.1f} h for the {len(self.left)} left"

    def add(self, task: Task) -> None:
        """Counts a run that has ended.

        Args:
          task: the run.
        """
        self.networks += self.left.pop(task)
        self.seconds = time.monotonic() - self.began


@contextlib.contextmanager
def stopping_after(hours: float | None) -> Iterator[None]:
    """Sends SIGTERM to this process when the time is up.

    Args:
      hours: hours from now; None for no end.
    """
    if hours is None:
        yield
        return

    def stop() -> None:
        print("the time is up; stopping at the next checkpoint", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(3600 * hours, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
