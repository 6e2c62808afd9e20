"""Residual networks for ImageNet and for CIFAR, of basic blocks or bottlenecks."""

import functools
from collections.abc import Callable
from typing import Any

from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsparse.models import blocks as blocks_lib
from jaxsparse.models import layers
from jaxsparse.models.layers import ModuleFactory

BLOCKS = {"basic": blocks_lib.BasicBlock, "bottleneck": blocks_lib.Bottleneck}
STEMS = {"imagenet": (7, 2), "cifar": (3, 1)}  # size and stride of the convolution


class ResNet(nn.Module):
    """A convolution, stages of residual blocks, an average, a linear head.

    Layers are called conv, norm, stage1_block0/conv1, ... and head, and bypasses
    stage1_block0/skip1, ... The usual networks, and how many parameters they have:

        blocks           block         stem "imagenet", 1000    stem "cifar", 10 classes
        (2, 2, 2, 2)     "basic"       ResNet-18   11,689,512   11,173,962
        (3, 4, 6, 3)     "basic"       ResNet-34   21,797,672   21,282,122
        (3, 4, 6, 3)     "bottleneck"  ResNet-50   25,557,032   23,520,842
        (3, 4, 23, 3)    "bottleneck"  ResNet-101  44,549,160   42,512,970
        (3, 8, 36, 3)    "bottleneck"  ResNet-152  60,192,808   58,156,618

    Attributes:
      blocks: how many there are in each stage; all stages but the first halve height
        and width.
      features: of the blocks of each stage; the first convolution has the first of
        them.
      block: "basic" or "bottleneck", which has four times the features at its end.
      stem: "imagenet" for a 7x7 convolution of stride 2 and 3x3 max pooling, "cifar"
        for a 3x3 convolution of stride 1.
      shortcut: where the shape changes, "projection" for a 1x1 convolution with
        normalisation, or "identity" for every second pixel and channels of zeros (He
        et al., option A).
      classes: number of outputs.
      act: any function of one array.
      conv: makes the convolutions.
      norm: makes the normalisations; called with `use_running_average`, so a
        `functools.partial` of linen's BatchNorm, perhaps with an `axis_name`.
      skip: makes a bypass of each convolution in the blocks, shortcuts aside, whose
        output is added before the activation; called as `skip(features,
        stride=stride, name="skip1")`. None for none.
      dense: makes the head.
      dtype: what the layers compute in; None for that of images and parameters
        together.

    Deviations:
      The stride lies in the 3x3 convolution of a bottleneck, as in all code that the
      numbers on sparse training come from; in the paper it lies in the 1x1 convolution
      before. Like all of linen, BatchNorm averages the biased variance of its batches,
      where PyTorch takes the unbiased one. Its momentum 0.9 is PyTorch's 0.1. The paper
      has nothing on four stages for CIFAR: stem "cifar" is what most later work has.

    References:
      He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, 2016,
      arXiv:1512.03385, table 1 and section 4.2.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    features: tuple[int, ...] = (64, 128, 256, 512)
    block: str = "bottleneck"
    stem: str = "imagenet"
    shortcut: str = "projection"
    classes: int = 1000
    act: Callable[[Array], Array] = nn.relu
    conv: ModuleFactory = nn.Conv
    norm: ModuleFactory = layers.BATCH_NORM
    skip: ModuleFactory | None = None
    dense: ModuleFactory = nn.Dense
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Refuses what there is not, and stages without a size."""
        for field, known in (
            ("block", tuple(BLOCKS)),
            ("stem", tuple(STEMS)),
            ("shortcut", blocks_lib.SHORTCUTS),
        ):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"{field}: got {getattr(self, field)!r}; wanted one of {known}"
                )
        layers.check_lengths(blocks=self.blocks, features=self.features)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Returns logits; in training, normalises by the batch."""
        unit = layers.bind(self, train=train)
        block = functools.partial(
            BLOCKS[self.block], shortcut=self.shortcut, act=self.act, unit=unit
        )
        size, stride = STEMS[self.stem]
        x = unit(images, self.features[0], size, stride=stride, skip=None, name="{}")
        x = self.act(x)
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        strides = (1,) + (2,) * (len(self.blocks) - 1)
        for width, stride, name in layers.stages(self.blocks, self.features, strides):
            x = block(width, stride, name=name)(x)
        return layers.classify(x, self.classes, dense=self.dense)


def ImageNetResNet(
    blocks: tuple[int, ...] = (3, 4, 6, 3), *, width: int = 64, **fields: Any
) -> ResNet:
    """Makes a `ResNet` whose every stage has twice the features of the one before.

    ResNet-50 with 1000 classes has 25,557,032 parameters, of which 25,502,912 in
    kernels.

    Args:
      blocks: how many there are in each stage.
      width: features of the first stage.
      **fields: others of `ResNet`, such as `block="basic"` for ResNet-18 and 34.

    Returns:
      The network.
    """
    features = tuple(width * 2**stage for stage in range(len(blocks)))
    return ResNet(blocks, features, **fields)


def CifarResNet(
    depth: int = 20,
    *,
    width: int = 16,
    block: str = "basic",
    classes: int = 10,
    **fields: Any,
) -> ResNet:
    """Makes the `ResNet` for CIFAR of (depth - 2) / 6 blocks in each of three stages.

    On 32x32x3 images ResNet-20 has 272,474 parameters, of which 270,896 in kernels;
    with `shortcut="identity"` 269,722.

    Args:
      depth: layers with weights, shortcuts aside, if blocks are basic; 6n + 2.
      width: features of the first stage; the others have two and four times as many.
      block: "basic", or "bottleneck" for the same number of blocks with three
        convolutions each, as the code of ToST has in the ResNet that it calls 104.
      classes: number of outputs.
      **fields: others of `ResNet`, such as `shortcut="identity"`.

    Returns:
      The network.

    Raises:
      ValueError: for a depth that there is not.

    Deviations:
      Shortcuts are projections by default, as in open_lth and ToST; the paper's have no
      weights on CIFAR (`shortcut="identity"`).

    References:
      He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, 2016,
      arXiv:1512.03385, section 4.2.
      Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse Neural Network Better with Any
      Mask, 2022, arXiv:2206.12755, whose code has bottlenecks from depth 54 on.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(
            f"depth: got {depth}; wanted 6n + 2, such as 20, 32, 44, 56 or 110"
        )
    return ImageNetResNet(
        ((depth - 2) // 6,) * 3,
        width=width,
        block=block,
        stem="cifar",
        classes=classes,
        **fields,
    )
