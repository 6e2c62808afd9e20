"""Training ResNet-8 of width 8 on small images: one replicate, and five at once."""

from experiments.benchmarks import fixtures, timing
from experiments.benchmarks.timing import Job, Table

SHAPE = (16, 16, 3)


def measure(
    *,
    seconds: float,
    repetitions: int = 5,
    batch_size: int = 128,
    steps: int = 20,
    replicates: int = 5,
) -> list[Table]:
    """Times the trainer's calls, per step of one replicate.

    Args:
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
      batch_size: examples in a step.
      steps: steps in a call.
      replicates: number of replicates in one program.
    """

    def job(count: int) -> Job:
        sizes = {"replicates": count, "batch_size": batch_size, "steps": steps}
        c = fixtures.recipe("resnet_8", **sizes)
        c.model.width = 8
        dataset = fixtures.random_dataset(SHAPE, examples=batch_size * steps)
        return fixtures.trainer_job(fixtures.make(c, dataset))

    single, several = "1 replicate", f"{replicates} replicates in one program"
    jobs = {single: job(1), several: job(replicates)}
    rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
    times = timing.milliseconds(rates)
    multiples = {name: timing.ratios(times[name], times[single]) for name in times}
    rows = [
        (
            name,
            timing.format_spread(values, 2),
            timing.format_spread(multiples[name], 2),
        )
        for name, values in times.items()
    ]
    side, _, channels = SHAPE
    title = f"ResNet-8, width 8, images of {side} x {side} x {channels}"
    header = ("", "ms for a step of a replicate", f"as a multiple of {single}")
    note = f"Batches of {batch_size}, 20 % of the weights, SGD; scans of {steps} steps."
    return [Table(title, header, rows, note, {"milliseconds": times})]
