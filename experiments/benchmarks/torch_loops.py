"""Training loops in plain PyTorch: batches from memory and from a DataLoader."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from experiments.benchmarks import pytorch, rows
from experiments.benchmarks.timing import Job
from jaxsparse.data.dataset import Dataset
from jaxsparse.types import Masks, Params


def jobs(
    params: Params,
    masks: Masks,
    dataset: Dataset,
    *,
    batch_size: int,
    steps: int,
    workers: Sequence[int],
    compiles: bool,
    stack: ExitStack,
) -> tuple[dict[tuple[str, str], Job], dict[str, str]]:
    """Makes every loop with every setting worth trying.

    Args:
      params: initial weights.
      masks: masks of the weights.
      dataset: what to train on.
      batch_size: examples in a step.
      steps: steps in a call.
      workers: numbers of DataLoader workers to try.
      compiles: whether to try torch.compile, which needs a C++ compiler on CPUs.
      stack: ends the workers when it is closed.

    Returns:
      Jobs by row and setting, and by row the reason why it is absent.
    """
    given, sizes = (params, masks, dataset), {"batch_size": batch_size, "steps": steps}
    found = {
        (rows.CACHED, pytorch.plural(n, "thread")): cached_job(
            *given, **sizes, threads=n
        )
        for n in pytorch.thread_counts()
    }
    found |= loader_jobs(*given, **sizes, workers=workers, stack=stack)
    if not compiles:
        return found, {rows.COMPILED: "not tried"}
    try:
        for n in pytorch.thread_counts():
            job = cached_job(*given, **sizes, threads=n, compiled=True)
            job.run(1)
            found[rows.COMPILED, pytorch.plural(n, "thread")] = job
    except Exception as error:  # compilers fail in many ways
        return found, {rows.COMPILED: f"fails here: {type(error).__name__}"}
    return found, {}


def cached_job(
    params: Params,
    masks: Masks,
    dataset: Dataset,
    *,
    batch_size: int,
    steps: int,
    threads: int,
    compiled: bool = False,
) -> Job:
    """Trains on float images in memory, from which batches are gathered by index.

    Args:
      params: initial weights.
      masks: masks of the weights.
      dataset: what to train on.
      batch_size: examples in a step.
      steps: steps in a call.
      threads: number of PyTorch's threads.
      compiled: whether to use torch.compile.
    """
    network = pytorch.Network(params, masks)
    forward = torch.compile(network) if compiled else network
    images = torch.from_numpy(dataset.train.images).float().div_(255)
    images = (
        images.sub_(dataset.mean[0]).div_(dataset.std[0]).flatten(1).to(pytorch.DEVICE)
    )
    labels = torch.from_numpy(dataset.train.labels).long().to(pytorch.DEVICE)

    def epochs() -> Iterator[torch.Tensor]:
        while True:
            order = torch.randperm(len(labels), device=pytorch.DEVICE)
            yield from order[: len(order) // batch_size * batch_size].split(batch_size)

    batches = epochs()

    def run(count: int) -> None:
        torch.set_num_threads(threads)
        for _ in range(count * steps):
            indices = next(batches)
            x, y = images.index_select(0, indices), labels.index_select(0, indices)
            pytorch.train_step(network, x, y, forward)
        pytorch.wait()

    return Job(run, steps)


class PerExample(TorchDataset):
    """Yields one normalized image and its label at a time, as torch datasets do."""

    def __init__(self, dataset: Dataset) -> None:
        """Keeps the images as uint8 tensors."""
        self.images = torch.from_numpy(dataset.train.images)
        self.labels = torch.from_numpy(dataset.train.labels).long()
        self.mean, self.std = dataset.mean[0], dataset.std[0]

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns example `i`."""
        return (self.images[i].float() / 255 - self.mean) / self.std, self.labels[i]


def loader_jobs(
    params: Params,
    masks: Masks,
    dataset: Dataset,
    *,
    batch_size: int,
    steps: int,
    workers: Sequence[int],
    stack: ExitStack,
) -> dict[tuple[str, str], Job]:
    """Trains on the batches of a DataLoader, by number of workers.

    Args:
      params: initial weights.
      masks: masks of the weights.
      dataset: what to train on.
      batch_size: examples in a step.
      steps: steps in a call.
      workers: numbers of DataLoader workers to try.
      stack: ends the workers when it is closed.
    """
    threads = os.cpu_count() or 1

    def job(count: int) -> Job:
        network = pytorch.Network(params, masks)
        examples = PerExample(dataset)
        batches = load(examples, batch_size=batch_size, workers=count, stack=stack)

        def run(calls: int) -> None:
            torch.set_num_threads(threads)
            for _ in range(calls * steps):
                images, labels = next(batches)
                pytorch.train_step(
                    network, images.to(pytorch.DEVICE), labels.to(pytorch.DEVICE)
                )
            pytorch.wait()

        return Job(run, steps)

    return {
        (rows.LOADER, pytorch.plural(count, "worker")): job(count) for count in workers
    }


def load(
    examples: PerExample, *, batch_size: int, workers: int, stack: ExitStack
) -> Iterator[list[torch.Tensor]]:
    """Yields batches of a DataLoader without end.

    Workers are spawned once and not forked, because JAX runs threads.

    Args:
      examples: what to load.
      batch_size: examples in a batch.
      workers: number of worker processes; 0 to load in this process.
      stack: ends the workers when it is closed.
    """
    loader = DataLoader(
        examples,
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="spawn" if workers else None,
    )

    def epochs() -> Iterator[list[torch.Tensor]]:
        while True:
            yield from loader

    batches = epochs()

    def end() -> None:
        batches.close()
        if loader._iterator is not None:
            loader._iterator._shutdown_workers()

    if workers:
        stack.callback(end)
    return batches
