"""Starts a recipe as `experiments/train.py` does, and stops after its first step.

    python -m experiments.benchmarks.launch FOLDER PRESET

Prints the wall-clock time at the end of each phase as JSON. `startup` subtracts the
time at which it gave the command.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import experiments.train  # noqa: F401  (what the command imports)
from jaxsparse import factory
from jaxsparse.runner import run as run_lib
from jaxsparse.training import profiling, progress
from jaxsparse.training.run_dir import RunDir


class FirstStep(Exception):  # noqa: N818  (not an error)
    """Raised after the first step, to stop the run."""


class StartTime(progress.Progress):
    """A progress bar that records when training starts, and stops it at its first step.

    Attributes:
      began: wall-clock time at which training started; 0 before.
    """

    def __init__(self, out: TextIO) -> None:
        """Shows the progress of a run of one stage.

        Args:
          out: where to print.
        """
        super().__init__(1, 0, out=out)
        self.began = 0.0

    def begin(self, name: str, **steps: int) -> None:
        """Records the time."""
        super().begin(name, **steps)
        self.began = time.time()

    def advance(self, step: int, *, note: str = "") -> None:
        """Stops the run. The host has waited for the devices by now."""
        raise FirstStep


def main(folder: Path, preset: str) -> dict[str, Any]:
    """Runs `configs/dense_digits.py` up to its first step.

    Args:
      folder: run directory.
      preset: preset of the recipe.

    Returns:
      Wall-clock times by phase, and the time and number of compilations.
    """
    imported = time.time()
    costs = profiling.CostTracker()
    from configs import dense_digits

    c = dense_digits.get_config(preset)
    # The first call has one step, after which the host waits for it.
    c.run.steps_per_call, c.run.checkpoint_every = 1, "1step"
    factory.set_up_jax(c)
    made = factory.make_experiment(c, factory.load_data(c), folder)
    built = time.time()
    folder.mkdir(parents=True, exist_ok=True)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        shown = StartTime(nowhere)
        run_dir = RunDir(folder, shown)
        try:
            run_lib.run(made, run_dir)
        except FirstStep:
            stepped = time.time()
    cost = costs.so_far()
    return {
        "imported": imported,
        "built": built,
        "began": shown.began,
        "stepped": stepped,
        "compiling": cost["compile_seconds"],
        "programs": cost["programs"],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
