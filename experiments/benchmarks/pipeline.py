"""The input pipeline: images per second in training, by where the examples are stored.

Images have the size of CIFAR's and the network is small (LeNet-300-100), so that most
of the time is spent on input.
"""

from contextlib import ExitStack

from experiments.benchmarks import fixtures, mnist, rows, timing
from experiments.benchmarks.fixtures import Fixture
from experiments.benchmarks.timing import Table

RESIDENT = "jaxsparse, examples on the device"
STREAMED = "jaxsparse, streamed from the host"
SHAPE = (32, 32, 3)


def measure(
    *,
    seconds: float,
    repetitions: int = 5,
    batch_size: int = 128,
    steps: int = 50,
    examples: int = 50_000,
    workers: tuple[int, ...] = (0, 2),
) -> list[Table]:
    """Times training with examples on the device, on the host and from a DataLoader.

    Args:
      seconds: time for each row, over its repetitions.
      repetitions: turns of each row.
      batch_size: examples in a step.
      steps: steps in a call.
      examples: number of random images.
      workers: numbers of DataLoader workers to try.
    """
    dataset = fixtures.random_dataset(SHAPE, examples=examples)

    def fixture(placement: str) -> Fixture:
        sizes = {"replicates": 1, "batch_size": batch_size, "steps": steps}
        c = fixtures.recipe("lenet_300_100", **sizes)
        c.run.data_placement = placement
        return fixtures.make(c, dataset)

    resident = fixture("device")
    jobs = {
        (RESIDENT, ""): fixtures.trainer_job(resident),
        (STREAMED, ""): fixtures.trainer_job(fixture("host")),
        (rows.LIBRARY, ""): mnist.library_job(resident, steps=steps),
    }
    absent = {}
    with ExitStack() as stack:
        if (torch := mnist.load_torch("torch_loops")) is None:
            absent[rows.LOADER] = rows.MISSING
        else:
            jobs |= torch.loader_jobs(
                *fixtures.first_replicate(resident),
                dataset,
                batch_size=batch_size,
                steps=steps,
                workers=workers,
                stack=stack,
            )
        jobs = {key: job._replace(work=steps * batch_size) for key, job in jobs.items()}
        rates = timing.interleave(jobs, seconds=seconds, repetitions=repetitions)
    fastest, settings = timing.best_settings(rates)
    table = timing.rate_table(
        f"Input pipeline: LeNet-300-100, images of 32 x 32 x 3, batch {batch_size}",
        fastest,
        unit="images/s",
        base=RESIDENT,
        note=" ".join(settings),
        absent=absent,
    )
    return [table]
