"""LeNet-300-100 with masks in plain PyTorch, and a training step that is fast.

The network, the masks and the order of operations are those of `mnist.library_loop`:
weights are multiplied by their masks before the forward pass, as in open_lth, and SGD
has no momentum. Only this module and the modules `torch_*` import torch.
"""

import os
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its customary name)

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
        """Returns logits.

        Args:
          images: batch of images, float32 [b ...].
        """
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
    """Trains on batches [steps b ...] of floats, and returns the loss of each.

    Args:
      params: weights of one replicate, in the layout of linen.
      masks: their masks.
      images: normalized images, float32 [steps b ...].
      labels: their classes [steps b].
    """
    return train(Network(params, masks), images, labels)


def train(
    network: torch.nn.Module, images: np.ndarray, labels: np.ndarray
) -> list[float]:
    """Trains a network by `train_step`, and returns the loss of each batch.

    Args:
      network: the network; its weights are changed.
      images: images as the network takes them, float32 [steps b ...].
      labels: their classes [steps b].
    """
    values = []
    for x, y in zip(images, labels, strict=True):
        batch = torch.from_numpy(x).to(DEVICE), torch.from_numpy(y).long().to(DEVICE)
        values.append(float(train_step(network, *batch)))
    return values


def thread_counts() -> list[int]:
    """Returns the numbers of threads worth trying."""
    cores = os.cpu_count() or 1
    return [1] if DEVICE.type == "cuda" else sorted({1, min(2, cores), cores})


def plural(count: int, noun: str) -> str:
    """Formats a count, as in "2 threads".

    Args:
      count: the count.
      noun: the noun in the singular.
    """
    return f"{count} {noun}{'s' * (count != 1)}"


def wait() -> None:
    """Waits until the device has finished its work."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
