"""From the command to the end of the first step, in processes of their own.

Each process launches `configs/dense_digits.py` as `experiments/train.py` does, with an
empty cache of compiled programs and again with the full one (see `launch`).
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
# What a user's process keeps in its cache, see `build.set_up_jax`.
LEAST = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5"}
# This process holds most of a GPU's memory; a launch takes only what it needs.
SHARING = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
PARTS = ("import", "build", "first state", "first step")
PATIENCE = 600


def measure(*, seconds: float, repetitions: int = 3, variant: str = "") -> list[Table]:
    """Times launches, cold and warm in turns.

    Args:
      seconds: not used: a launch takes as long as it takes.
      repetitions: pairs of launches.
      variant: of the recipe.
    """
    del seconds
    title = "Time from command to first step"
    if jax.default_backend() == "tpu":
        row = ("a TPU serves one process, and this is one",)
        return [Table(title, ("",), [row], "", {})]
    found: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repetitions):
            for name, launches in found.items():
                place = Path(folder) / str(number)
                launches.append(launch(place / name, place / "cache", variant))
    names = ("total", *PARTS, "compiling")
    rows = [
        (f"{name} cache",)
        + tuple(timing.spread([one[part] for one in launches], 2) for part in names)
        + (timing.spread([one["programs"] for one in launches]),)
        for name, launches in found.items()
    ]
    header = (
        "",
        "command to first step, s",
        *(f"{part}, s" for part in PARTS),
        "of these compiling, s",
        "programs compiled or read",
    )
    note = (
        f"Medians and ranges of {repetitions} processes each, LeNet-300-100 on the "
        "embedded digits, 5 replicates. `import` begins with the command; `first "
        "state` has initial weights and their checkpoint; `first step` the evaluation "
        "before it, and calls have one step. With a warm cache a program counts as "
        "compiled for as long as it is read, and those that compile in less than half "
        "a second are not kept."
    )
    return [Table(title, header, rows, note, found)]


def launch(folder: Path, cache: Path, variant: str) -> dict[str, float]:
    """Launches a recipe in a process of its own, up to its first step.

    Args:
      folder: of the run.
      cache: folder of compiled programs.
      variant: of the recipe.

    Returns:
      Seconds of each of `PARTS`, "total" and "compiling", and the number of
      "programs".

    Raises:
      RuntimeError: with the end of what it said, if it fails.
    """
    env = os.environ | LEAST | SHARING | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    module = "experiments.benchmarks.launch"
    command = [sys.executable, "-m", module, str(folder), variant]
    began = time.time()
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr[-2000:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    ends = [said[name] for name in ("imported", "built", "began", "stepped")]
    parts = [b - a for a, b in zip([began, *ends], ends, strict=False)]
    times = {"total": ends[-1] - began, "compiling": said["compiling"]}
    return times | dict(zip(PARTS, parts, strict=True)) | {"programs": said["programs"]}
