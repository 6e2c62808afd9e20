"""Residual blocks: convolutions whose output is added to a shortcut.

All blocks take `act`, an activation function of one array, and `unit`, the
`layers.ConvUnit` of the network.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float

from jaxsparse.models.layers import ConvUnit, ModuleFactory

SHORTCUTS = ("projection", "identity")


def subsample(
    x: Float[Array, "b h w c"], features: int, *, stride: int
) -> Float[Array, "b h2 w2 o"]:
    """Fits a shortcut to a block's output without weights (He et al., option A).

    Args:
      x: input of the block, [b, h, w, c].
      features: channels of the output, at least those of `x`.
      stride: distance of the pixels that are kept, along h and w, starting with the
        first.

    Returns:
      The kept pixels, with channels of zeros appended to those of `x`.
    """
    missing = features - x.shape[-1]
    for axis in (1, 2):  # unlike indexing, also for batches of symbolic size
        x = lax.slice_in_dim(x, 0, None, stride, axis)
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    The block computes act(shortcut(x) + unit(act(unit(x)))), where a unit is
    norm(conv(x)), plus skip(x) if the network has ghost skip connections.

    Attributes:
      features: channels of the output.
      stride: stride of the first convolution.
      fits: whether the input has the shape of the output, so that it is the shortcut.
      shortcut: "projection" for a 1x1 convolution or "identity" for `subsample`; used
        where the shape changes.
      act: activation function, applied twice.
      unit: the `layers.ConvUnit` of the network, from `layers.bind`.
    """

    features: int
    stride: int
    fits: bool
    shortcut: str
    act: Callable[[Array], Array]
    unit: ConvUnit

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Computes the output of the block."""
        y = self.unit(x, self.features, 3, stride=self.stride, name="{}1")
        y = self.unit(self.act(y), self.features, 3, name="{}2")
        return self.act(_fit(x, y, self) + y)


class Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1 convolutions, and a shortcut.

    If the network has ghost skip connections, each of the three convolutions has one,
    as in `BasicBlock`.

    Attributes:
      features: channels of the 3x3 convolution; the output has four times as many.
      stride: stride of the 3x3 convolution.
      fits: whether the input has the shape of the output, so that it is the shortcut.
      shortcut: "projection" for a 1x1 convolution or "identity" for `subsample`; used
        where the shape changes.
      act: activation function, applied three times.
      unit: the `layers.ConvUnit` of the network, from `layers.bind`.
    """

    features: int
    stride: int
    fits: bool
    shortcut: str
    act: Callable[[Array], Array]
    unit: ConvUnit

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Computes the output of the block."""
        y = self.act(self.unit(x, self.features, 1, name="{}1"))
        # He et al. place the stride in the first convolution; see the deviations of
        # `resnet.ResNet`.
        y = self.unit(y, self.features, 3, stride=self.stride, name="{}2")
        y = self.unit(self.act(y), 4 * self.features, 1, name="{}3")
        return self.act(_fit(x, y, self) + y)


def _fit(
    x: Float[Array, "b h w c"],
    y: Float[Array, "b h2 w2 o"],
    block: BasicBlock | Bottleneck,
) -> Float[Array, "b h2 w2 o"]:
    """Converts the input of a block to the shape of its output if it does not fit."""
    features, stride = y.shape[-1], block.stride
    if block.fits:
        return x
    if block.shortcut == "identity":
        return subsample(x, features, stride=stride)
    # Without a ghost skip connection: the projection is a shortcut itself.
    return block.unit(x, features, 1, stride=stride, has_skip=False, name="shortcut_{}")


class PreActivation(nn.Module):
    """Two 3x3 convolutions, each after normalization and activation, and a shortcut.

    Here a unit is conv(x), plus skip(x) if the network has ghost skip connections. A
    shortcut that changes the shape starts after the first activation.

    Attributes:
      features: channels of the output.
      stride: stride of the first convolution.
      fits: whether the input has the shape of the output, so that it is the shortcut.
      act: activation function, applied twice.
      norm: creates normalization layers; already bound to training or evaluation mode.
      unit: the `layers.ConvUnit` of the network, without normalization.
    """

    features: int
    stride: int
    fits: bool
    act: Callable[[Array], Array]
    norm: ModuleFactory
    unit: ConvUnit

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Computes the output of the block."""
        size, stride = self.features, self.stride
        active = self.act(self.norm(name="norm1")(x))
        y = self.unit(active, size, 3, stride=stride, name="{}1")
        y = self.unit(self.act(self.norm(name="norm2")(y)), size, 3, name="{}2")
        if not self.fits:
            unit, out = self.unit, y.shape[-1]
            x = unit(active, out, 1, stride=stride, has_skip=False, name="shortcut_{}")
        return x + y
