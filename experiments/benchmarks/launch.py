"""Runs a recipe as `experiments/train.py` does, and prints when its first step ended.

    python -m experiments.benchmarks.launch FOLDER PRESET

The last line is JSON with the wall-clock time at the end of each phase, from which
`startup` subtracts the time at which it gave the command.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax

import experiments.train  # noqa: F401  (what the command imports)
from configs import dense_digits
from experiments import training
from jaxsparse.training import profiling


def main(folder: Path, preset: str) -> dict[str, Any]:
    """Runs `configs/dense_digits.py` to its end.

    Args:
      folder: run directory.
      preset: preset of the recipe.

    Returns:
      Wall-clock times at the end of each phase: `imported`; `began` with the initial
      state; `stepped` with the first steps, at most one epoch of 19; `ended` with the
      run. The number of `programs` that the run compiled or read from the cache, and
      the `compile_seconds` that this took.
    """
    times = {"imported": time.time()}
    costs = profiling.CostTracker()

    def note(step: int, state: Any) -> None:
        name = "stepped" if step else "began"
        if name not in times:
            jax.block_until_ready(state)
            times[name] = time.time()

    training.run(
        dense_digits.get_config(preset), folder, report=False, callbacks=(note,)
    )
    return times | {"ended": time.time()} | costs.so_far()


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
