"""Pruning by `torch.nn.utils.prune`, for the comparison with other libraries."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn.utils import prune

from experiments.benchmarks import pytorch
from experiments.benchmarks.timing import Job
from jaxsparse.types import Masks, Params

THREADS = max(pytorch.thread_counts())


def select_job(weights: np.ndarray, sparsity: float) -> tuple[Job, Callable[[], int]]:
    """Times global selection by magnitude, as in `global_unstructured`.

    Args:
      weights: weights of all layers [n].
      sparsity: fraction to prune.

    Returns:
      The job, and a function that counts the weights it keeps.
    """
    vector = torch.from_numpy(weights).to(pytorch.DEVICE)
    method, ones = prune.L1Unstructured(amount=sparsity), torch.ones_like(vector)

    def run(count: int) -> None:
        torch.set_num_threads(THREADS)
        for _ in range(count):
            method.compute_mask(vector, ones)
        pytorch.wait()

    return Job(run, 1), lambda: int(method.compute_mask(vector, ones).sum())


def step_job(
    params: Params, masks: Masks, images: np.ndarray, labels: np.ndarray, *, steps: int
) -> Job:
    """Times training LeNet-300-100 on one batch; `prune` masks weights at each use.

    Args:
      params: initial weights.
      masks: masks of the weights.
      images: normalized images [b ...].
      labels: classes [b].
      steps: steps in a call, which is one unit of work.
    """
    network = pytorch.Network(params, masks)
    for layer, mask in zip(network.layers, network.masks, strict=True):
        prune.custom_from_mask(layer, "weight", mask)
    optimizer = torch.optim.SGD(network.parameters(), lr=pytorch.LEARNING_RATE)
    x = torch.from_numpy(images).flatten(1).to(pytorch.DEVICE)
    y = torch.from_numpy(labels).long().to(pytorch.DEVICE)

    def run(count: int) -> None:
        torch.set_num_threads(THREADS)
        for _ in range(count * steps):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
        pytorch.wait()

    return Job(run, 1)
