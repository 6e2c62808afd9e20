"""Residual networks for CIFAR: ResNet-20, 32, 44, 56 and 110, of any width."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

BATCH_NORM = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)
SHORTCUTS = ("projection", "identity")
# "SAME" pads an even image by (0, 1) under stride 2 and so samples other pixels than
# PyTorch's padding=1, in which all published numbers were computed.
PADDING = ((1, 1), (1, 1))


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
    """Two 3x3 convolutions around a shortcut.

    Attributes:
      features: channels of the output.
      stride: of the first convolution.
      shortcut: "projection" or "identity"; used where the shape changes.
      act: called twice.
      conv: makes convolutions, already given their dtype and no bias.
      norm: makes normalisations, already told whether this is training.
    """

    features: int
    stride: int
    shortcut: str
    act: Callable[[Array], Array]
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Returns the block's output."""
        size, strides = self.features, (self.stride, self.stride)
        y = self.conv(size, (3, 3), strides=strides, padding=PADDING, name="conv1")(x)
        y = self.act(self.norm(name="norm1")(y))
        y = self.conv(size, (3, 3), padding=PADDING, name="conv2")(y)
        y = self.norm(name="norm2")(y)
        if self.stride != 1 or x.shape[-1] != size:
            if self.shortcut == "projection":
                x = self.conv(size, (1, 1), strides=strides, name="shortcut_conv")(x)
                x = self.norm(name="shortcut_norm")(x)
            else:
                x = subsample(x, size, stride=self.stride)
        return self.act(x + y)


class CifarResNet(nn.Module):
    """A convolution, three stages of (depth - 2) / 6 basic blocks, a linear head.

    Layers are called conv, norm, stage1_block0/conv1, ... and head. On 32x32x3 images
    ResNet-20 has 272,474 parameters, of which 270,896 in kernels; with
    `shortcut="identity"` 269,722.

    Attributes:
      depth: layers with weights, shortcuts aside; 6n + 2.
      width: channels of the first stage; the others have two and four times as many.
      shortcut: where the shape changes, "projection" for a 1x1 convolution with
        normalisation (open_lth), or "identity" for every second pixel and channels of
        zeros (He et al., option A).
      classes: number of outputs.
      act: any function of one array.
      conv: makes the convolutions.
      norm: makes the normalisations; called with `use_running_average`, so a
        `functools.partial` of linen's BatchNorm, perhaps with an `axis_name`.
      dense: makes the head.
      dtype: what the layers compute in; None for that of images and parameters
        together.

    Deviations:
      Like all of linen, BatchNorm averages the biased variance of its batches, where
      PyTorch takes the unbiased one. Its momentum 0.9 is PyTorch's 0.1.

    References:
      He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, 2016,
      arXiv:1512.03385, section 4.2.
    """

    depth: int = 20
    width: int = 16
    shortcut: str = "projection"
    classes: int = 10
    act: Callable[[Array], Array] = nn.relu
    conv: Callable[..., nn.Module] = nn.Conv
    norm: Callable[..., nn.Module] = BATCH_NORM
    dense: Callable[..., nn.Module] = nn.Dense
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Refuses depths and shortcuts that there are not."""
        if self.depth < 8 or self.depth % 6 != 2:
            raise ValueError(
                f"depth: got {self.depth}; wanted 6n + 2, such as 20, 32, 44, 56 or 110"
            )
        if self.shortcut not in SHORTCUTS:
            raise ValueError(
                f"shortcut: got {self.shortcut!r}; wanted one of {SHORTCUTS}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Returns logits; in training, normalises by the batch."""
        conv = functools.partial(self.conv, use_bias=False, dtype=self.dtype)
        norm = functools.partial(
            self.norm, use_running_average=not train, dtype=self.dtype
        )
        block = functools.partial(
            BasicBlock, shortcut=self.shortcut, act=self.act, conv=conv, norm=norm
        )
        x = conv(self.width, (3, 3), padding=PADDING, name="conv")(images)
        x = self.act(norm(name="norm")(x))
        for stage in range(3):
            for i in range((self.depth - 2) // 6):
                x = block(
                    self.width * 2**stage,
                    2 if stage > 0 and i == 0 else 1,
                    name=f"stage{stage + 1}_block{i}",
                )(x)
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean(axis=(1, 2))
        return self.dense(self.classes, dtype=x.dtype, name="head")(x)
