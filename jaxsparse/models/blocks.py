"""Residual blocks: what is computed beside a shortcut and added to it.

All of them are made with `act`, any function of one array, and `unit`, which is
`layers.unit` bound to the layers of the network.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxsparse.models.layers import ConvUnit, ModuleFactory

SHORTCUTS = ("projection", "identity")


def subsample(
    x: Float[Array, "b h w c"], features: int, *, stride: int
) -> Float[Array, "b h2 w2 o"]:
    """Fits a shortcut to a block's output without any weight (He et al., option A).

    Args:
      x: the block's input.
      features: channels of the output, at least those of `x`.
      stride: every how many pixels one is taken, from the first.

    Returns:
      The pixels taken, with channels of zeros after those of `x`.
    """
    missing = features - x.shape[-1]
    return jnp.pad(x[:, ::stride, ::stride, :], ((0, 0), (0, 0), (0, 0), (0, missing)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    Each convolution has a bypass, if there are any: the block is act(x + unit(act(
    unit(x)))), with units that are norm(conv(x)) + skip(x).

    Attributes:
      features: channels of the output.
      stride: of the first convolution.
      shortcut: "projection" or "identity"; used where the shape changes.
      act: called twice.
      unit: makes convolutions.
    """

    features: int
    stride: int
    shortcut: str
    act: Callable[[Array], Array]
    unit: ConvUnit

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Returns the block's output."""
        y = self.unit(x, self.features, 3, stride=self.stride, name="{}1")
        y = self.unit(self.act(y), self.features, 3, name="{}2")
        return self.act(_fit(x, y, self) + y)


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 convolutions, beside a shortcut.

    Each convolution has a bypass, if there are any, as in a `BasicBlock`.

    Attributes:
      features: channels of the 3x3 convolution; the output has four times as many.
      stride: of the 3x3 convolution.
      shortcut: "projection" or "identity"; used where the shape changes.
      act: called three times.
      unit: makes convolutions.
    """

    features: int
    stride: int
    shortcut: str
    act: Callable[[Array], Array]
    unit: ConvUnit

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Returns the block's output."""
        y = self.act(self.unit(x, self.features, 1, name="{}1"))
        y = self.unit(y, self.features, 3, stride=self.stride, name="{}2")
        y = self.unit(self.act(y), 4 * self.features, 1, name="{}3")
        return self.act(_fit(x, y, self) + y)


def _fit(
    x: Float[Array, "b h w c"],
    y: Float[Array, "b h2 w2 o"],
    block: BasicBlock | Bottleneck,
) -> Float[Array, "b h2 w2 o"]:
    """Gives a block's input the shape of its output, if that is another."""
    features, stride = y.shape[-1], block.stride
    if stride == 1 and x.shape[-1] == features:
        return x
    if block.shortcut == "identity":
        return subsample(x, features, stride=stride)
    return block.unit(x, features, 1, stride=stride, skip=None, name="shortcut_{}")


class PreActivation(nn.Module):
    """Two 3x3 convolutions, each after a normalisation and an activation.

    Each convolution has a bypass, if there are any: what a unit computes is conv(x) +
    skip(x) here. A shortcut that changes the shape begins after the first activation.

    Attributes:
      features: channels of the output.
      stride: of the first convolution.
      act: called twice.
      norm: makes normalisations, already told whether this is training.
      unit: makes convolutions without a normalisation.
    """

    features: int
    stride: int
    act: Callable[[Array], Array]
    norm: ModuleFactory
    unit: ConvUnit

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Returns the block's output."""
        size, stride = self.features, self.stride
        active = self.act(self.norm(name="norm1")(x))
        y = self.unit(active, size, 3, stride=stride, name="{}1")
        y = self.unit(self.act(self.norm(name="norm2")(y)), size, 3, name="{}2")
        if stride != 1 or x.shape[-1] != size:
            x = self.unit(active, size, 1, stride=stride, skip=None, name="shortcut_{}")
        return x + y
