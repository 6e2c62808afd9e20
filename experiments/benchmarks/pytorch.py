"""LeNet-300-100 with masks in plain PyTorch, written to be fast.

The network, the masks and the order of work are those of `mnist.library_loop`:
weights are multiplied by their masks before the forward pass, as open_lth does, and
SGD has no momentum. This module, `torch_resnet` and `torch_prune` are all that import
torch.
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

RATE = 0.1
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LAYERS = ("dense1", "dense2", "head")


class Network(torch.nn.Module):
    """LeNet-300-100 with the weights and masks of a JAX network."""

    def __init__(self, params: Params, masks: Masks) -> None:
        """Copies weights and masks; kernels are transposed."""
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
    """Does one update in place and returns the loss before it, without waiting."""
    torch._foreach_mul_(network.kernels, network.masks)
    logits = (network if forward is None else forward)(images)
    loss = F.cross_entropy(logits, labels)
    for parameter in network.parameters():
        parameter.grad = None
    loss.backward()
    with torch.no_grad():
        parameters = list(network.parameters())
        grads = [parameter.grad for parameter in parameters]
        torch._foreach_add_(parameters, grads, alpha=-RATE)
    return loss.detach()


def normalized(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns all training images as floats, and labels, on the host."""
    images = torch.from_numpy(dataset.train.images).float().div_(255)
    images.sub_(dataset.mean[0]).div_(dataset.std[0])
    return images.flatten(1), torch.from_numpy(dataset.train.labels).long()


def losses(
    params: Params, masks: Masks, images: np.ndarray, labels: np.ndarray
) -> list[float]:
    """Trains on batches [steps b ...] of floats, and returns each one's loss."""
    return train(Network(params, masks), images, labels)


def train(
    network: torch.nn.Module, images: np.ndarray, labels: np.ndarray
) -> list[float]:
    """Trains a network, as `train_step` wants it, and returns each batch's loss."""
    found = []
    for x, y in zip(images, labels, strict=True):
        batch = torch.from_numpy(x).to(DEVICE), torch.from_numpy(y).long().to(DEVICE)
        found.append(float(train_step(network, *batch)))
    return found


def jobs(
    params: Params,
    masks: Masks,
    dataset: Dataset,
    *,
    batch_size: int,
    steps: int,
    workers: Sequence[int],
    compiles: bool,
    ending: ExitStack,
) -> tuple[dict[tuple[str, str], Job], dict[str, str]]:
    """Makes every loop with every setting worth trying.

    Args:
      params: weights to begin with.
      masks: which of them exist.
      dataset: what to train on.
      batch_size: examples a step.
      steps: in one call.
      workers: numbers of DataLoader workers to try.
      compiles: whether to try torch.compile, which needs a C++ compiler on CPUs.
      ending: gets what ends the workers.

    Returns:
      Jobs by row and setting, and by row why it is absent.
    """
    cores, counts = os.cpu_count() or 1, thread_counts()
    both = {"batch_size": batch_size, "steps": steps}
    found: dict[tuple[str, str], Job] = {}
    for n in counts:
        job = cached_job(params, masks, dataset, **both, threads=n)
        found[rows.CACHED, word(n, "thread")] = job
    for n in workers:
        job = loader_job(
            params, masks, dataset, **both, threads=cores, workers=n, ending=ending
        )
        found[rows.LOADER, word(n, "worker")] = job
    if not compiles:
        return found, {rows.COMPILED: "not tried"}
    try:
        for n in counts:
            job = cached_job(params, masks, dataset, **both, threads=n, compiled=True)
            job.run(1)
            found[rows.COMPILED, word(n, "thread")] = job
    except Exception as error:  # compilers fail in many ways
        return found, {rows.COMPILED: f"does not work here: {type(error).__name__}"}
    return found, {}


def thread_counts() -> list[int]:
    """Returns the numbers of threads worth trying."""
    cores = os.cpu_count() or 1
    return [1] if DEVICE.type == "cuda" else sorted({1, min(2, cores), cores})


def word(count: int, noun: str) -> str:
    """Words a count."""
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
    """Trains on float images held in memory, batches taken by index."""
    network = Network(params, masks)
    forward = torch.compile(network) if compiled else network
    images, labels = (part.to(DEVICE) for part in normalized(dataset))

    def epochs() -> Iterator[torch.Tensor]:
        while True:
            order = torch.randperm(len(labels), device=DEVICE)
            yield from order[: len(order) // batch_size * batch_size].split(batch_size)

    batches = epochs()

    def run(count: int) -> None:
        torch.set_num_threads(threads)
        for _ in range(count * steps):
            chosen = next(batches)
            x, y = images.index_select(0, chosen), labels.index_select(0, chosen)
            train_step(network, x, y, forward)
        wait()

    return Job(run, steps)


class PerExample(TorchDataset):
    """One normalised image and its label at a time, as a torch Dataset does."""

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


def loader_job(
    params: Params,
    masks: Masks,
    dataset: Dataset,
    *,
    batch_size: int,
    steps: int,
    threads: int,
    workers: int,
    ending: ExitStack,
) -> Job:
    """Trains on what a DataLoader with default collation yields.

    Workers are spawned, once: JAX runs threads, which a fork does not survive.
    """
    network = Network(params, masks)
    batches = load(
        PerExample(dataset), batch_size=batch_size, workers=workers, ending=ending
    )

    def run(count: int) -> None:
        torch.set_num_threads(threads)
        for _ in range(count * steps):
            images, labels = next(batches)
            train_step(network, images.to(DEVICE), labels.to(DEVICE))
        wait()

    return Job(run, steps)


def load(
    examples: PerExample, *, batch_size: int, workers: int, ending: ExitStack
) -> Iterator[list[torch.Tensor]]:
    """Yields batches of a DataLoader without end; `ending` gets what ends workers."""
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
        ending.callback(end)
    return batches


def wait() -> None:
    """Waits for what was given to the device."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
