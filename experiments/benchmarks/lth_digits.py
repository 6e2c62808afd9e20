"""The run of `configs/lth_digits.py`: its time, and the part of it that is training.

The command is run with one level, with half of its levels and with all of them. Every
level but the first has the same stages, so a level of the second half should take as
long as one of the first. Training is timed as the compiled calls that the trainer
makes, beside a bare scan over as many steps.
"""

import tempfile
from pathlib import Path

import jax
import optax
from ml_collections import ConfigDict

from configs import lth_digits
from experiments.benchmarks import bare_scan, commands, fixtures, timing
from experiments.benchmarks.timing import Job, Table
from jaxsparse import factory
from jaxsparse.lottery import plan

SHAPE = (8, 8, 1)
RUN, CALLS, BARE = "whole run", "its compiled training calls", "a bare scan"


def measure(
    *,
    seconds: float,
    repetitions: int = 3,
    preset: str = "",
) -> list[Table]:
    """Times the command with three numbers of levels, and its training alone.

    Args:
      seconds: time for each row of training, over its repetitions. A command takes as
        long as it takes.
      repetitions: turns of each row.
      preset: preset of the recipe.
    """
    c = lth_digits.get_config(preset)
    title = f"{c.name}: a run of {c.lottery.levels} levels"
    if jax.default_backend() == "tpu":
        return [timing.absent_table(title, commands.NO_TPU)]
    last = c.lottery.levels
    half = (1 + last) // 2
    commanded = time_commands((1, half, last), preset, repetitions=repetitions)
    whole = commanded[last]
    growth = [
        ((all_of - some) / (last - half)) / ((some - one) / (half - 1))
        for one, some, all_of in zip(*commanded.values(), strict=True)
    ]
    jobs, lengths = training_jobs(c)
    steps = sum(lengths)
    rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
    times = {RUN: whole} | {
        name: [steps * c.replicates / rate for rate in values]
        for name, values in rates.items()
    }
    shares = {name: timing.ratios(times[name], whole) for name in jobs}
    rows = [
        (
            name,
            timing.format_rates(values),
            timing.format_spread(shares[name], 2) if name in shares else "1",
        )
        for name, values in times.items()
    ]
    shown = ", ".join(
        f"{count}: {timing.format_rates(values)} s"
        for count, values in commanded.items()
    )
    note = (
        "`train.py --config=lth_digits` with its report and cached programs, in "
        f"processes of its own, by the number of levels: {shown}. A level of the "
        f"second half takes {timing.format_spread(growth, 2)} times as long as one of "
        f"the first. The other rows are for all {steps:,} steps of {c.replicates} "
        f"replicates, scaled from turns of a stage, {max(lengths):,} steps, or several "
        "stages: the calls also shuffle, gather and normalize images and apply "
        "masks; the bare scan is of dense Adam on one batch."
    )
    data = {
        "seconds": times,
        "levels": {str(count): values for count, values in commanded.items()},
        "share": {"not training": [1 - share for share in shares[CALLS]]},
        "growth": growth,
    }
    return [Table(title, ("", "s", "share of the run"), rows, note, data)]


def time_commands(
    levels: tuple[int, ...], preset: str, *, repetitions: int
) -> dict[int, list[float]]:
    """Times the command by number of levels, after one call that fills the cache.

    Args:
      levels: numbers of levels.
      preset: preset of the recipe.
      repetitions: turns of each number of levels.

    Returns:
      Seconds of each repetition, by number of levels.
    """
    times: dict[int, list[float]] = {count: [] for count in levels}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def run(count: int, number: int) -> float:
            return commands.run(
                "experiments/train.py",
                f"--config=lth_digits:{preset}",
                f"--config.lottery.levels={count}",
                f"--workdir={folder / f'{count}-{number}'}",
                cache=folder / "programs",
            ).total

        run(levels[0], repetitions)
        for number in range(repetitions):
            for count in levels:
                times[count].append(run(count, number))
    return times


def training_jobs(c: ConfigDict) -> tuple[dict[str, Job], list[int]]:
    """Makes the jobs of training alone, of which a call has the steps of a stage.

    Args:
      c: the recipe.

    Returns:
      The jobs by row, and the number of training steps of each stage of the whole run.
    """
    c.run.steps_per_call = 19  # an epoch, after which the recipe evaluates
    fixture = fixtures.make(c, factory.load_data(c))
    lengths = [s.stop - s.start for s in plan.stages(fixture.experiment.plan)]
    stage = max(lengths)
    calls, adam = fixtures.trainer_job(fixture), optax.adam(c.schedule.learning_rate)
    number = -(-stage // c.run.steps_per_call)  # rounded up
    jobs = {
        CALLS: Job(lambda count: calls.run(count * number), calls.work * number),
        BARE: bare_scan.scan_job(c, adam, SHAPE, steps=stage),
    }
    return jobs, lengths
