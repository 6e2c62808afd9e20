"""Studies so small that tests can train all their runs in this process."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.studies import driver
from experiments.studies.driver import Places, Task
from experiments.studies.run_reader import Reader
from experiments.studies.runs import Run
from experiments.studies.study import Study

RECIPE = str(Path(__file__).parent / "tiny_recipe.py")


def as_tiny(study: Study, runs: Sequence[Run], setting: str = "mnist") -> Study:
    """Makes these the runs of a study's one setting, whatever the scale."""
    return dataclasses.replace(
        study, settings=(setting,), runs=lambda setting, scale: list(runs)
    )


def tasks(study: Study, folder: Path) -> list[Task]:
    """Lists the runs of a study in a folder, which also gets their records."""
    listed = study.all_runs("quick")
    places = Places(folder, folder / "records", "")
    return [Task(study, run, listed, places) for run in listed]


def train(study: Study, folder: Path) -> dict[str, Any]:
    """Trains and measures all runs, writes the page, and returns the records."""
    every = tasks(study, folder)
    assert driver.run_all(every) == []
    study.report("quick", folder / "records", folder / "report")
    return {task.run.name: measure(task) for task in every}


def measure(task: Task) -> dict[str, Any]:
    """Measures a run that has ended once more, with all digits."""
    places, by_name = task.places, {run.name: run for run in task.others}

    def reader(name: str) -> Reader:
        return Reader(by_name[name], places.runs, places.data_dir)

    return task.study.measure(reader(task.run.name), reader)


def contents(folder: Path, *suffixes: str) -> dict[str, bytes]:
    """Reads all files of a folder with these suffixes."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.suffix in suffixes
    }


def spread(values: Any) -> tuple[float, float]:
    """Averages, with the sample deviation, in plain numpy."""
    return float(np.mean(values)), float(np.std(values, ddof=1))
