"""Training ResNet-8 of width 8 on small images: one replicate, and five at once."""

from ml_collections import ConfigDict

from experiments.benchmarks import fixtures, timing
from experiments.benchmarks.timing import Job, Table
from jaxsparse import config

NETWORK, SHAPE = "resnet_8", (16, 16, 3)


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
        c = recipe(replicates=count, batch_size=batch_size, steps=steps)
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


def recipe(*, replicates: int, batch_size: int, steps: int) -> ConfigDict:
    """Makes the config; registers the network if it has no name yet.

    Args:
      replicates: number of replicates in one program.
      batch_size: examples in a step.
      steps: steps in a call.
    """
    if NETWORK not in config.MODELS:
        config.register_model(
            NETWORK,
            "jaxsparse.models:CifarResNet",
            takes=("width", "norm", "conv", "skip", "dtype"),
            arguments={"depth": 8},
            rectifies=True,
        )
    sizes = {"replicates": replicates, "batch_size": batch_size, "steps": steps}
    c = fixtures.recipe(NETWORK, **sizes)
    c.model.width = 8
    return c
