"""The time from the command to the first line and to the first step, and to the end.

Each process runs `configs/dense_digits.py`, once with an empty cache of compiled
programs and once with a full one.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import jax

from experiments.benchmarks import commands, timing
from experiments.benchmarks.timing import Table

PHASES = {"import": "imported", "set up": "began", "first step": "stepped"}
TITLE = "Time from command to first step"


def measure(*, seconds: float, repetitions: int = 3, preset: str = "") -> list[Table]:
    """Times launches with an empty and a full cache in turns.

    Args:
      seconds: not used: a launch takes as long as it takes.
      repetitions: pairs of launches.
      preset: preset of the recipe.
    """
    del seconds
    if jax.default_backend() == "tpu":
        return [timing.absent_table(TITLE, commands.NO_TPU)]
    launches: dict[str, list[dict[str, float]]] = {"empty": [], "full": []}
    with tempfile.TemporaryDirectory() as name:
        for number in range(repetitions):
            folder = Path(name) / str(number)
            for cache, times in launches.items():
                times.append(launch(folder / cache, folder / "programs", preset))
    columns = ("first line", "total", *PHASES, "compiling", "whole run")
    rows = [
        (f"{cache} cache",)
        + tuple(timing.format_spread([t[c] for t in times], 2) for c in columns)
        + (timing.format_spread([t["programs"] for t in times]),)
        for cache, times in launches.items()
    ]
    header = (
        "",
        "command to first line, s",
        "command to first step, s",
        *(f"thereof {phase}, s" for phase in PHASES),
        "compiling in the whole run, s",
        "command to end, s",
        "programs compiled or read in the whole run",
    )
    note = (
        f"Medians and ranges over {repetitions} processes each; LeNet-300-100 on the "
        "embedded digits, 5 replicates, 608 steps. `import` starts with the command. "
        "`set up` includes the data, the initial weights and their checkpoint, `first "
        "step` the evaluation before it and the first call, of one epoch (19 steps). "
        "With a full cache the time to read a program counts as compiling. The first "
        "line is that of `train.py`, in a process of its own."
    )
    return [Table(TITLE, header, rows, note, launches)]


def launch(folder: Path, cache: Path, preset: str) -> dict[str, float]:
    """Runs a recipe in a process of its own, and its command up to the first line.

    Args:
      folder: run directory.
      cache: folder of compiled programs.
      preset: preset of the recipe.

    Returns:
      The seconds of each of `PHASES`, to the "first line", to the first step ("total"),
      of the "whole run" and of "compiling", and the number of "programs".

    Raises:
      RuntimeError: if the process fails, with the end of its output.
    """
    module = "experiments.benchmarks.launch"
    done = commands.run("-m", module, str(folder), preset, cache=cache)
    printed: dict[str, Any] = json.loads(done.lines[-1])
    ends = [done.start, *(printed[name] for name in PHASES.values())]
    phases = [b - a for a, b in zip(ends, ends[1:], strict=False)]
    command = ("experiments/train.py", f"--config=dense_digits:{preset}", "--noreport")
    workdir = f"--workdir={folder.with_name(f'{folder.name}-line')}"
    line = commands.run(*command, workdir, cache=cache, to_first_line=True)
    return dict(zip(PHASES, phases, strict=True)) | {
        "first line": line.first_line,
        "total": ends[-1] - done.start,
        "whole run": printed["ended"] - done.start,
        "compiling": printed["compile_seconds"],
        "programs": printed["programs"],
    }
