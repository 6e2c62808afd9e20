"""How fast examples reach training, and how fast the host alone can gather them.

Images have CIFAR's size and the network is small (LeNet-300-100), so that what is
measured is mostly the way of the images and not what is computed on them.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np

from experiments.benchmarks import fixtures, mnist, timing
from experiments.benchmarks.fixtures import Rig
from experiments.benchmarks.timing import Job, Table
from jaxsparse.data.dataset import Dataset
from jaxsparse.training.scan_chunks import ScanChunk

RESIDENT = "jaxsparse, examples on the device"
STREAMED = "jaxsparse, streamed from the host"
LIBRARY = "jaxsparse as a library, numpy batches"
LOADER = "PyTorch, DataLoader"
GATHER = "jaxsparse, Streamed.gather"
SERVE = "jaxsparse, Streamed.serve, placed on the device"
INDEX = "numpy, one batch at a time by index"
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
    """Times training by where examples lie, and gathering without training.

    Args:
      seconds: for each row, over its repetitions.
      repetitions: turns of each row.
      batch_size: examples a step.
      steps: in one call.
      examples: number of random images.
      workers: numbers of DataLoader workers to try.
    """
    dataset = fixtures.random_dataset(SHAPE, examples=examples)

    def rig(where: str) -> Rig:
        sizes = {"replicates": 1, "batch_size": batch_size, "steps": steps}
        c = fixtures.recipe("lenet_300_100", **sizes)
        c.run.data_placement = where
        return fixtures.make(c, dataset)

    resident, streamed = rig("device"), rig("host")
    training = {
        (RESIDENT, ""): fixtures.trainer_job(resident),
        (STREAMED, ""): fixtures.trainer_job(streamed),
        (LIBRARY, ""): mnist.library_job(resident, steps=steps),
    }
    alone = {
        (GATHER, ""): gather_job(streamed, steps=steps),
        (SERVE, ""): serve_job(streamed, steps=steps),
        (INDEX, ""): index_job(dataset, batch_size=batch_size, steps=steps),
    }
    with ExitStack() as ending:
        absent = _add_torch(
            *(training, alone, resident, steps, workers, ending),
        )
        what = f"images of 32 x 32 x 3, batch {batch_size}"
        tables = []
        for title, jobs, base in (
            (f"Input pipeline, LeNet-300-100 training: {what}", training, RESIDENT),
            (f"Input pipeline, the host alone: {what}", alone, GATHER),
        ):
            jobs = {
                name: job._replace(work=steps * batch_size)
                for name, job in jobs.items()
            }
            rates = timing.in_turns(jobs, seconds=seconds, repetitions=repetitions)
            chosen, words = timing.best_settings(rates)
            tables.append(
                timing.rate_table(
                    title,
                    chosen,
                    unit="images/s",
                    base=base,
                    note=" ".join(words),
                    absent=absent,
                )
            )
    return tables


def _add_torch(
    training: dict[tuple[str, str], Job],
    alone: dict[tuple[str, str], Job],
    rig: Rig,
    steps: int,
    workers: tuple[int, ...],
    ending: ExitStack,
) -> dict[str, str]:
    """Adds what needs torch to both; returns why it is absent, if it is."""
    torch = mnist.load_torch()
    if torch is None:
        return {LOADER: mnist.MISSING}
    size = rig.config.data.batch_size
    for count in workers:
        setting = f"{count} worker{'s' * (count != 1)}"
        training[LOADER, setting] = torch.loader_job(
            *mnist.first_replicate(rig),
            rig.dataset,
            batch_size=size,
            steps=steps,
            threads=torch.os.cpu_count() or 1,
            workers=count,
            ending=ending,
        )
        batches = torch.load(
            torch.PerExample(rig.dataset),
            batch_size=size,
            workers=count,
            ending=ending,
        )
        alone[LOADER, setting] = _taking(batches, steps)
    return {}


def _taking(batches: Iterator[object], count: int) -> Job:
    """Takes so many from an iterator in each call."""

    def run(times: int) -> None:
        for _ in range(times * count):
            next(batches)

    return Job(run, count)


def gather_job(rig: Rig, *, steps: int) -> Job:
    """Copies the batches of calls in this thread, for one device."""
    trainer, size = rig.experiment.trainer, rig.config.data.batch_size
    order = np.random.default_rng(0).permutation(len(rig.dataset.train.labels))[None]
    asked = fixtures.calls(trainer.epoch, steps=steps, batch_size=size)

    def gathered(call: ScanChunk) -> object:
        return trainer.feed.gather(order, call)

    return _taking(map(gathered, asked), 1)


def serve_job(rig: Rig, *, steps: int) -> Job:
    """Gathers batches in threads and brings them to the device, an order an epoch."""
    trainer, size = rig.experiment.trainer, rig.config.data.batch_size
    asked = fixtures.calls(trainer.epoch, steps=steps, batch_size=size)
    served = trainer.feed.iterate(rig.experiment.seeds.data, asked)

    def waited() -> Iterator[object]:
        for _, data in served:
            yield data.images.block_until_ready()

    return _taking(waited(), 1)


def index_job(dataset: Dataset, *, batch_size: int, steps: int) -> Job:
    """Takes batches from arrays by index, an order an epoch."""
    images, labels = dataset.train
    draw = np.random.default_rng(0)

    def batches() -> Iterator[object]:
        while True:
            order = draw.permutation(len(labels))
            for first in range(0, len(order) - batch_size + 1, batch_size):
                rows = order[first : first + batch_size]
                yield images[rows], labels[rows]

    return _taking(batches(), steps)
