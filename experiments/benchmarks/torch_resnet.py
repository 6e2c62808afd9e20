"""ResNet-20 with masks in plain PyTorch, trained by `pytorch.train_step`.

The architecture, the weights and the masks are those of a JAX network.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its customary name)

from experiments.benchmarks import pytorch
from experiments.benchmarks.timing import Job
from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks, Params

FORMATS = {
    "channels first": torch.contiguous_format,
    "channels last": torch.channels_last,
}
SHORTCUT = "shortcut_"


class Network(torch.nn.Module):
    """The network of a `models.CifarResNet` with basic blocks."""

    def __init__(
        self,
        params: Params,
        masks: Masks,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        """Copies weights and masks from [h w i o] to PyTorch's [o i h w]."""
        super().__init__()
        self.blocks = sorted(name for name in params if name.startswith("stage"))
        self.layers = torch.nn.ModuleDict()
        kept = dict(zip(masks_lib.names(masks), jax.tree.leaves(masks), strict=True))
        masked = []
        for owner in ("", *self.blocks):
            for name, leaves in (params[owner] if owner else params).items():
                if not {"kernel", "scale"} & set(leaves):
                    continue
                path = f"{owner}/{name}" if owner else name
                layer = self.layers[path.replace("/", "_")] = _layer(path, leaves)
                if f"{path}/kernel" in kept:
                    masked.append((layer, _tensor(kept[f"{path}/kernel"])))
        self.to(pytorch.DEVICE, memory_format=layout)
        self.kernels = [layer.weight.data for layer, _ in masked]
        self.masks = [
            mask.to(pytorch.DEVICE, memory_format=layout) if mask.ndim == 4 else mask
            for mask in (mask.to(pytorch.DEVICE) for _, mask in masked)
        ]

    def conv_norm(self, x: torch.Tensor, name: str, number: str = "") -> torch.Tensor:
        """Applies a convolution and its normalization.

        Args:
          x: feature maps, float32 [b c h w].
          name: prefix of the names of both layers.
          number: number at the end of both names; "" for none.
        """
        x = self.layers[f"{name}conv{number}"](x)
        return self.layers[f"{name}norm{number}"](x)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits.

        Args:
          images: batch of images, float32 [b c h w].
        """
        x = F.relu(self.conv_norm(images, ""))
        for block in self.blocks:
            y = F.relu(self.conv_norm(x, f"{block}_", "1"))
            y = self.conv_norm(y, f"{block}_", "2")
            changes = f"{block}_{SHORTCUT}conv" in self.layers
            x = F.relu(y + (self.conv_norm(x, f"{block}_{SHORTCUT}") if changes else x))
        return self.layers["head"](x.mean((2, 3)))


def _tensor(kernel: object) -> torch.Tensor:
    """Copies a kernel or its mask to PyTorch's order of axes."""
    array = np.asarray(kernel, np.float32)
    return torch.from_numpy(np.moveaxis(array, (-1, -2), (0, 1)).copy())


def _layer(path: str, leaves: Params) -> torch.nn.Module:
    """Makes a layer with the given weights."""
    if "scale" in leaves:
        layer = torch.nn.BatchNorm2d(len(leaves["scale"]))
        weight = torch.from_numpy(np.array(leaves["scale"]))
    else:
        weight = _tensor(leaves["kernel"])
        outputs, inputs, *size = weight.shape
        if size:
            # Every stage but the first starts with a stride of 2.
            first = path.endswith(("block0/conv1", f"block0/{SHORTCUT}conv"))
            stride = 2 if first and not path.startswith("stage1") else 1
            pad = size[0] // 2
            layer = torch.nn.Conv2d(
                inputs, outputs, tuple(size), stride, pad, bias="bias" in leaves
            )
        else:
            layer = torch.nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if "bias" in leaves:
            layer.bias.copy_(torch.from_numpy(np.array(leaves["bias"])))
    return layer


def losses(
    params: Params, masks: Masks, images: np.ndarray, labels: np.ndarray
) -> list[float]:
    """Trains on batches [steps b h w c] of floats, and returns the loss of each.

    Args:
      params: weights of one replicate, in the layout of linen.
      masks: their masks.
      images: normalized images, float32 [steps b h w c].
      labels: their classes [steps b].
    """
    channels_first = np.ascontiguousarray(np.moveaxis(images, -1, 2))
    return pytorch.train(Network(params, masks), channels_first, labels)


def jobs(
    params: Params, masks: Masks, images: np.ndarray, labels: np.ndarray
) -> dict[str, Job]:
    """Times training on one batch [b h w c] of floats: a job for each setting.

    Args:
      params: weights of one replicate, in the layout of linen.
      masks: their masks.
      images: normalized images, float32 [b h w c].
      labels: their classes [b].
    """
    y = torch.from_numpy(labels).long().to(pytorch.DEVICE)

    def step(layout: torch.memory_format) -> Callable[[], Any]:
        network = Network(params, masks, layout)
        x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        x = x.to(pytorch.DEVICE).contiguous(memory_format=layout)
        return lambda: pytorch.train_step(network, x, y)

    return by_setting(step)


def by_setting(
    make: Callable[[torch.memory_format], Callable[[], Any]],
) -> dict[str, Job]:
    """Makes a job for each order of the axes in memory and each number of threads.

    Args:
      make: from an order of the axes to the function of which a job makes calls.
    """

    def job(layout: torch.memory_format, threads: int) -> Job:
        call = make(layout)

        def run(count: int) -> None:
            torch.set_num_threads(threads)
            for _ in range(count):
                call()
            pytorch.wait()

        return Job(run, 1)

    return {
        f"{name}, {pytorch.plural(count, 'thread')}": job(layout, count)
        for name, layout in FORMATS.items()
        for count in pytorch.thread_counts()
    }
