"""Single layers in plain PyTorch, forward and with all gradients."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from experiments.benchmarks import pytorch
from experiments.benchmarks.timing import Job
from experiments.benchmarks.torch_resnet import by_setting


def convolution(kernel: np.ndarray) -> torch.nn.Module:
    """Makes a convolution with stride 1 that keeps the size of images.

    Args:
      kernel: the kernel, float32 [3 3 i o].
    """
    _, _, inputs, outputs = kernel.shape
    layer = torch.nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kernel).permute(3, 2, 0, 1))
    return layer


def normalization(channels: int) -> torch.nn.Module:
    """Makes BatchNorm in training mode with ReLU.

    Args:
      channels: number of channels.
    """
    return torch.nn.Sequential(torch.nn.BatchNorm2d(channels), torch.nn.ReLU())


def values(layer: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Computes a layer, and the gradients of half the sum of its squared outputs.

    Args:
      layer: the layer.
      images: images or feature maps, float32 [b c h w], with gradients required.

    Returns:
      The outputs, and the gradients by the images and by each parameter.
    """
    y = layer(images)
    wanted = (images, *layer.parameters())
    return [y, *torch.autograd.grad(y, wanted, y.detach())]


def as_images(
    images: np.ndarray, layout: torch.memory_format = torch.contiguous_format
) -> torch.Tensor:
    """Copies images to a tensor that requires gradients.

    Args:
      images: images or feature maps, float32 [b h w c].
      layout: order of the axes in memory.
    """
    x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
    return x.to(pytorch.DEVICE, memory_format=layout).requires_grad_()


def jobs(layer: torch.nn.Module, images: np.ndarray) -> dict[str, Job]:
    """Times a layer with its gradients: a job for each setting.

    Args:
      layer: the layer.
      images: images or feature maps, float32 [b h w c].
    """

    def call(layout: torch.memory_format) -> Callable[[], Any]:
        own = copy.deepcopy(layer).to(pytorch.DEVICE, memory_format=layout)
        x = as_images(images, layout)
        return lambda: values(own, x)

    return by_setting(call)
