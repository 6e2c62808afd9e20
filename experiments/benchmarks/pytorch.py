"""LeNet-300-100 with masks in plain PyTorch, written to be fast.

The network, the masks and the order of operations are those of `mnist.library_loop`:
weights are multiplied by their masks before the forward pass, as in open_lth, and SGD
has no momentum. Only this module, `torch_resnet` and `torch_prune` import torch.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its customary name)
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from experiments.benchmarks import rows
from experiments.benchmarks.timing import Job
from jaxsparse.data.dataset import Dataset
from jaxsparse.types import Masks, Params

LEARNING_RATE = 0.1
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LAYERS = ("dense1", "dense2", "head")


class Network(torch.nn.Module):
    """LeNet-300-100 with the weights and masks of a JAX network."""

    def __init__(self, params: Params, masks: Masks) -> None:
        """Copies weights and masks, with kernels transposed."""
        super().__init__()
        self.layers = torch.nn.ModuleList()
        self.masks = []
        for name in LAYERS:
            kernel = np.asarray(params[name]["kernel"])
            layer = torch.nn.Linear(*kernel.shape)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
                bias = np.array(params[name]["bias"])
                layer.bias.copy_(torch.from_numpy(bias))
            self.layers.append(layer)
            mask = np.asarray(masks[name]["kernel"]).T.astype(np.float32)
            self.masks.append(torch.from_numpy(mask.copy()).to(DEVICE))
        self.to(DEVICE)
        self.kernels = [layer.weight.data for layer in self.layers]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits."""
        x = images.flatten(1)
        *hidden, head = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        return head(x)


def train_step(
    network: Network, images: torch.Tensor, labels: torch.Tensor, forward: Any = None
) -> torch.Tensor:
    """Updates a network in place.

    Args:
      network: has `kernels`, and `masks` of the same shapes.
      images: a batch, on `DEVICE`.
      labels: its classes, on `DEVICE`.
      forward: the compiled network; None to call `network`.

    Returns:
      The loss before the update. The device may still be computing it.
    """
    torch._foreach_mul_(network.kernels, network.masks)
    logits = (network if forward is None else forward)(images)
    loss = F.cross_entropy(logits, labels)
    for parameter in network.parameters():
        parameter.grad = None
    loss.backward()
    with torch.no_grad():
        parameters = list(network.parameters())
        grads = [parameter.grad for parameter in parameters]
        torch._foreach_add_(parameters, grads, alpha=-LEARNING_RATE)
    return loss.detach()


def losses(
    params: Params, masks: Masks, images: np.ndarray, labels: np.ndarray
) -> list[float]:
    """Trains on batches [steps b ...] of floats, and returns the loss of each."""
    return train(Network(params, masks), images, labels)


def train(
    network: torch.nn.Module, images: np.ndarray, labels: np.ndarray
) -> list[float]:
    """Trains a network by `train_step`, and returns the loss of each batch."""
    values = []
    for x, y in zip(images, labels, strict=True):
        batch = torch.from_numpy(x).to(DEVICE), torch.from_numpy(y).long().to(DEVICE)
        values.append(float(train_step(network, *batch)))
    return values


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
        (rows.CACHED, plural(n, "thread")): cached_job(*given, **sizes, threads=n)
        for n in thread_counts()
    }
    found |= loader_jobs(*given, **sizes, workers=workers, stack=stack)
    if not compiles:
        return found, {rows.COMPILED: "not tried"}
    try:
        for n in thread_counts():
            job = cached_job(*given, **sizes, threads=n, compiled=True)
            job.run(1)
            found[rows.COMPILED, plural(n, "thread")] = job
    except Exception as error:  # compilers fail in many ways
        return found, {rows.COMPILED: f"fails here: {type(error).__name__}"}
    return found, {}


def thread_counts() -> list[int]:
    """Returns the numbers of threads worth trying."""
    cores = os.cpu_count() or 1
    return [1] if DEVICE.type == "cuda" else sorted({1, min(2, cores), cores})


def plural(count: int, noun: str) -> str:
    """Formats a count, as in "2 threads"."""
    return f"{count} {noun}{'s' * (count != 1)}"


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
    network = Network(params, masks)
    forward = torch.compile(network) if compiled else network
    images = torch.from_numpy(dataset.train.images).float().div_(255)
    images = images.sub_(dataset.mean[0]).div_(dataset.std[0]).flatten(1).to(DEVICE)
    labels = torch.from_numpy(dataset.train.labels).long().to(DEVICE)

    def epochs() -> Iterator[torch.Tensor]:
        while True:
            order = torch.randperm(len(labels), device=DEVICE)
            yield from order[: len(order) // batch_size * batch_size].split(batch_size)

    batches = epochs()

    def run(count: int) -> None:
        torch.set_num_threads(threads)
        for _ in range(count * steps):
            indices = next(batches)
            x, y = images.index_select(0, indices), labels.index_select(0, indices)
            train_step(network, x, y, forward)
        wait()

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
        network = Network(params, masks)
        examples = PerExample(dataset)
        batches = load(examples, batch_size=batch_size, workers=count, stack=stack)

        def run(calls: int) -> None:
            torch.set_num_threads(threads)
            for _ in range(calls * steps):
                images, labels = next(batches)
                train_step(network, images.to(DEVICE), labels.to(DEVICE))
            wait()

        return Job(run, steps)

    return {(rows.LOADER, plural(count, "worker")): job(count) for count in workers}


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


def wait() -> None:
    """Waits until the device has finished its work."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
