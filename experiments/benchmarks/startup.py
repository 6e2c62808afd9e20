"""The time from the command to the end of the first step.

Each process starts `configs/dense_digits.py` as `experiments/train.py` does, once with
an empty cache of compiled programs and once with a full one (see `launch`).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from experiments.benchmarks import timing
from experiments.benchmarks.timing import Table

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = {
    # As in `factory.set_up_jax`: all programs are cached.
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    # This process occupies most of a GPU's memory; the launched one must share it.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
PHASES = ("import", "build", "first state", "first step")
TIMEOUT = 600  # seconds for a process


def measure(*, seconds: float, repetitions: int = 3, variant: str = "") -> list[Table]:
    """Times launches with an empty and a full cache in turns.

    Args:
      seconds: not used: a launch takes as long as it takes.
      repetitions: pairs of launches.
      variant: variant of the recipe.
    """
    del seconds
    title = "Time from command to first step"
    if jax.default_backend() == "tpu":
        row = ("not measured: a TPU serves one process, and this process has it",)
        return [Table(title, ("",), [row], "", {})]
    launches: dict[str, list[dict[str, float]]] = {"empty": [], "full": []}
    with tempfile.TemporaryDirectory() as name:
        for number in range(repetitions):
            folder = Path(name) / str(number)
            for cache, times in launches.items():
                times.append(launch(folder / cache, folder / "programs", variant))
    columns = ("total", *PHASES, "compiling")
    rows = [
        (f"{cache} cache",)
        + tuple(timing.format_spread([t[c] for t in times], 2) for c in columns)
        + (timing.format_spread([t["programs"] for t in times]),)
        for cache, times in launches.items()
    ]
    header = (
        "",
        "command to first step, s",
        *(f"{phase}, s" for phase in PHASES),
        "thereof compiling, s",
        "programs compiled or read",
    )
    note = (
        f"Medians and ranges over {repetitions} processes each; LeNet-300-100 on the "
        "embedded digits, 5 replicates. `import` starts with the command. `first "
        "state` includes the initial weights and their checkpoint, `first step` the "
        "evaluation before it. Calls have one step. With a full cache the time to read "
        "a program counts as compiling."
    )
    return [Table(title, header, rows, note, launches)]


def launch(folder: Path, cache: Path, variant: str) -> dict[str, float]:
    """Runs a recipe up to its first step, in a process of its own.

    Args:
      folder: run directory.
      cache: folder of compiled programs.
      variant: variant of the recipe.

    Returns:
      The seconds of each of `PHASES`, "total" and "compiling", and the number of
      "programs".

    Raises:
      RuntimeError: if the process fails, with the end of its output.
    """
    env = os.environ | ENVIRONMENT | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    module = "experiments.benchmarks.launch"
    command = [sys.executable, "-m", module, str(folder), variant]
    start = time.time()
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=TIMEOUT
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr[-2000:]}")
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    ends = [printed[name] for name in ("imported", "built", "began", "stepped")]
    seconds = [b - a for a, b in zip([start, *ends], ends, strict=False)]
    return {
        "total": ends[-1] - start,
        "compiling": printed["compiling"],
        "programs": printed["programs"],
    } | dict(zip(PHASES, seconds, strict=True))
