"""Predictions of the same networks in PyTorch, with dense and with CSR weights."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its customary name)

from experiments.benchmarks import pytorch, torch_resnet
from experiments.benchmarks.inference_networks import Network
from jaxsparse import masks as masks_lib


def _linear(leaves: Any) -> torch.nn.Linear:
    kernel = np.asarray(leaves["kernel"])
    layer = torch.nn.Linear(*kernel.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kernel.T.copy()))
        layer.bias.copy_(torch.from_numpy(np.array(leaves["bias"])))
    return layer


def _norm(leaves: Any) -> torch.nn.LayerNorm:
    layer = torch.nn.LayerNorm(len(leaves["scale"]), eps=1e-6)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.array(leaves["scale"])))
        layer.bias.copy_(torch.from_numpy(np.array(leaves["bias"])))
    return layer


class Block(torch.nn.Module):
    """A block of the transformer."""

    def __init__(self, leaves: Any, heads: int) -> None:
        """Copies weights.

        Args:
          leaves: parameters of the block of linen.
          heads: number of attention heads.
        """
        super().__init__()
        self.heads = heads
        self.norms = torch.nn.ModuleList(_norm(leaves[n]) for n in ("norm1", "norm2"))
        names = ("query", "key", "value", "out")
        self.attention = torch.nn.ModuleList(
            _linear(leaves["attention"][name]) for name in names
        )
        self.mlp = torch.nn.ModuleList(_linear(leaves[n]) for n in ("mlp1", "mlp2"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the block.

        Args:
          x: tokens [b t c].
        """
        y = self.norms[0](x)
        query, key, value = (
            layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in self.attention[:3]
        )
        y = F.scaled_dot_product_attention(query, key, value)
        x = x + self.attention[3](y.transpose(1, 2).flatten(2))
        return x + self.mlp[1](F.gelu(self.mlp[0](self.norms[1](x))))


class ViT(torch.nn.Module):
    """The network of a `models.ViT`."""

    def __init__(self, params: Any, heads: int) -> None:
        """Copies weights.

        Args:
          params: parameters of linen.
          heads: number of attention heads.
        """
        super().__init__()
        kernel = np.asarray(params["patches"]["kernel"])
        side, _, channels, width = kernel.shape
        self.patches = torch.nn.Conv2d(channels, width, side, side)
        with torch.no_grad():
            moved = np.moveaxis(kernel, (3, 2), (0, 1)).copy()
            self.patches.weight.copy_(torch.from_numpy(moved))
            bias = torch.from_numpy(np.array(params["patches"]["bias"]))
            self.patches.bias.copy_(bias)
        self.token, self.positions = (
            torch.nn.Parameter(torch.from_numpy(np.array(params[name])))
            for name in ("class_token", "positions")
        )
        count = sum(name.startswith("block") for name in params)
        self.blocks = torch.nn.ModuleList(
            Block(params[f"block{i + 1}"], heads) for i in range(count)
        )
        self.norm, self.head = _norm(params["norm"]), _linear(params["head"])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Computes logits.

        Args:
          images: images [b c h w].
        """
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class CsrLinear(torch.nn.Module):
    """A dense layer or convolution with a weight in compressed sparse rows."""

    def __init__(self, layer: torch.nn.Module) -> None:
        """Converts the weight.

        Args:
          layer: a `Linear` or `Conv2d` with one group.
        """
        super().__init__()
        self.layer = layer
        matrix = layer.weight.detach().flatten(1)
        with warnings.catch_warnings():  # "beta state"
            warnings.simplefilter("ignore", UserWarning)
            self.matrix = matrix.to_sparse_csr()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the layer.

        Args:
          x: input of the layer.
        """
        bias = self.layer.bias
        if isinstance(self.layer, torch.nn.Linear):
            y = (self.matrix @ x.flatten(0, -2).T).T
            y = y if bias is None else y + bias
            return y.unflatten(0, x.shape[:-1])
        size, stride = self.layer.kernel_size, self.layer.stride
        padding = self.layer.padding
        columns = F.unfold(x, size, padding=padding, stride=stride)
        height = (x.shape[2] + 2 * padding[0] - size[0]) // stride[0] + 1
        y = self.matrix @ columns.transpose(0, 1).flatten(1)
        y = y.unflatten(1, (len(x), height, -1)).transpose(0, 1)
        return y if bias is None else y + bias[:, None, None]


def with_csr(network: torch.nn.Module, most_density: float) -> torch.nn.Module:
    """Gives layers with few active weights a weight in compressed sparse rows.

    Args:
      network: the network, which is changed.
      most_density: largest fraction of active weights of such a layer.
    """
    for name, child in network.named_children():
        if isinstance(child, torch.nn.Linear | torch.nn.Conv2d):
            if (child.weight != 0).float().mean() <= most_density:
                setattr(network, name, CsrLinear(child))
        else:
            with_csr(child, most_density)
    return network


def predictor(network: Network, *, csr_below: float = 0.0) -> Callable[[], np.ndarray]:
    """Makes a function that computes the logits with PyTorch, on one thread.

    Args:
      network: the network and its images.
      csr_below: layers with at most this fraction of active weights are multiplied in
        compressed sparse rows; 0 for none.
    """
    params = network.variables["params"]
    ones = masks_lib.ones(params)
    if "patches" in params:
        module = ViT(params, network.model.heads)
    elif "dense1" in params:
        module = pytorch.Network(params, ones)
    else:
        module = torch_resnet.Network(params, ones)
    module = with_csr(module.eval(), csr_below) if csr_below else module.eval()
    torch.set_num_threads(1)
    images = network.images
    if math.prod(images.shape[1:]) != 784:  # LeNet flattens in any order of axes
        images = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    x = torch.from_numpy(images)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return module(x).numpy()

    return run
