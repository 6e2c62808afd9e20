"""Which leaves a tensor of PyTorch holds, and in which order of axes.

Layouts differ as follows, where h and w are height and width, i inputs and o outputs:

    kernel of a convolution  [h, w, i, o]    weight  [o, i, h, w]
    kernel of a dense layer  [i, o]          weight  [o, i]
    dense layer after feature maps: rows in the order h, w, i become columns in the
    order i, h, w, as PyTorch flattens images
    query, key and value of a transformer: one weight, in this order
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn

from jaxsparse import models, tree
from jaxsparse.export import torch_names

_ENDS = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_ENDS |= {"mean": "running_mean", "var": "running_var"}
_LEAVES = {"class_token": "cls_token", "positions": "pos_embed"}  # of a ViT


class Entry(NamedTuple):
    """One tensor of a state dict.

    Attributes:
      key: its name in PyTorch.
      leaves: names of the leaves that are joined in it, in this order.
      channels: channels of the images or feature maps that the layer sees flattened; 0
        if it sees none.
    """

    key: str
    leaves: tuple[str, ...]
    channels: int


def _channels(model: nn.Module, shapes: dict[str, Any], channels: int | None) -> int:
    """Returns the channels that the first dense layer of a network sees flattened."""
    last = torch_names.last_conv(model)
    if last:
        return shapes[f"params/conv{last}/kernel"].shape[-1]
    if not isinstance(model, models.LeNet300100):
        return 0
    inputs = shapes[_first_dense(model)].shape[0]
    if channels is None or inputs % channels:
        raise ValueError(
            "channels: expected the number of channels of the images for a network "
            f"that flattens them, a divisor of its {inputs} inputs, got {channels}; "
            "grayscale images have 1"
        )
    return channels


def _first_dense(model: nn.Module) -> str:
    """Returns the name of the kernel of the first dense layer of a network."""
    name = "dense1" if getattr(model, "features", ()) else torch_names.HEAD
    return f"params/{name}/kernel"


def entries(
    model: nn.Module, variables: Any, *, channels: int | None = None
) -> list[Entry]:
    """Lists the tensors of a network's state dict.

    Args:
      model: a network of `models`.
      variables: its variables or their shapes.
      channels: channels of its images; needed for `models.LeNet300100` only.

    Raises:
      ValueError: if a leaf has no name in PyTorch, or `channels` is missing.
    """
    shapes = tree.named_leaves(variables)
    rename = torch_names.renamer(model)
    flat = _channels(model, shapes, channels)
    first = _first_dense(model)
    found: dict[str, list[str]] = {}
    for name in shapes:
        layer, _, end = name.partition("/")[2].rpartition("/")
        renamed = rename(layer)
        key = _LEAVES.get(end) if not layer else f"{renamed}.{_ENDS.get(end)}"
        if key is None or "None" in key.split("."):
            raise ValueError(
                f"variables: expected the leaves of {type(model).__name__}, got "
                f"{name!r}, which has no name in PyTorch; ghost skip connections must "
                "be removed, and other leaves belong to another network"
            )
        found.setdefault(key, []).append(name)

    def entry(key: str, leaves: list[str]) -> Entry:
        order = sorted(leaves, key=_order)
        is_first = flat and leaves[0] == first
        return Entry(key, tuple(order), flat if is_first else 0)

    return [entry(key, leaves) for key, leaves in found.items()]


def _order(leaf: str) -> int:
    """Returns the place of a leaf in a tensor that joins several."""
    joined = ("query", "key", "value")
    return next((i for i, part in enumerate(joined) if f"/{part}/" in leaf), 0)


def torch_shape(entry: Entry, shapes: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the shape of a tensor.

    Args:
      entry: the tensor.
      shapes: leaves, or their shapes as `jax.ShapeDtypeStruct`, by name.
    """
    shape = tuple(shapes[entry.leaves[0]].shape)
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        shape = (outputs, inputs, height, width)
    elif len(shape) == 2:
        shape = shape[::-1]
    joined = len(entry.leaves)
    return (joined * shape[0], *shape[1:]) if joined > 1 else shape


def to_torch(array: np.ndarray, channels: int) -> np.ndarray:
    """Reorders the axes of a leaf as in PyTorch.

    Args:
      array: the leaf, or a mask of its shape.
      channels: `Entry.channels` of its layer.
    """
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim != 2:
        return array
    if channels:
        pixels = array.reshape(-1, channels, array.shape[1])
        array = pixels.swapaxes(0, 1).reshape(array.shape)
    return array.T


def to_jax(array: np.ndarray, channels: int) -> np.ndarray:
    """Reorders the axes of a tensor as in JAX; the inverse of `to_torch`.

    Args:
      array: the tensor.
      channels: `Entry.channels` of its layer.
    """
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim != 2:
        return array
    if channels:
        outputs, inputs = array.shape
        maps = array.reshape(outputs, channels, inputs // channels)
        array = maps.swapaxes(1, 2).reshape(outputs, inputs)
    return array.T
