"""One launch of a recipe, as `experiments/train.py` does it, until its first step ends.

    python -m experiments.benchmarks.launch FOLDER VARIANT

Prints when what ended, by the clock of the machine, for `startup` to subtract the time
of the command from.
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


class FirstStep(Exception):  # noqa: N818  (no error: it ends the launch)
    """Ends a launch."""


class Clock(progress.Progress):
    """Notes when training begins, and ends it when it first advances."""

    def __init__(self, out: TextIO) -> None:
        """Shows on `out` what any run shows."""
        super().__init__(1, 0, out=out)
        self.began = 0.0

    def begin(self, name: str, **steps: int) -> None:
        """Notes the time."""
        super().begin(name, **steps)
        self.began = time.time()

    def advance(self, step: int, *, note: str = "") -> None:
        """Ends the launch: so far the host has waited for the devices."""
        raise FirstStep


def main(folder: Path, variant: str) -> dict[str, Any]:
    """Launches; returns times by name, and what was compiled."""
    imported = time.time()
    spent = profiling.CostTracker()
    from configs import dense_digits

    c = dense_digits.get_config(variant)
    # The first call has one step, after which the host waits for it.
    c.run.steps_per_call, c.run.checkpoint_every = 1, "1step"
    factory.set_up_jax(c)
    made = factory.make_experiment(c, factory.load_data(c), folder)
    built = time.time()
    folder.mkdir(parents=True, exist_ok=True)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        clock = Clock(nowhere)
        run_dir = RunDir(folder, clock)
        try:
            run_lib.run(made, run_dir)
        except FirstStep:
            stepped = time.time()
    cost = spent.so_far()
    return {
        "imported": imported,
        "built": built,
        "began": clock.began,
        "stepped": stepped,
        "compiling": cost["compile_seconds"],
        "programs": cost["programs"],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
