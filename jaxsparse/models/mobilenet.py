"""MobileNets: convolutions of single channels, mixed by 1x1 convolutions.

Both have the strides for ImageNet by default. Small images would be gone before the
last stage, so that code for CIFAR leaves out the first one or two of these strides.
"""

from collections.abc import Callable

from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsparse.models import layers
from jaxsparse.models.layers import ConvUnit, ModuleFactory


class Separable(nn.Module):
    """A 3x3 convolution of each channel by itself, conv1, and a 1x1 convolution, conv2.

    Each has a bypass, if there are any: both compute norm(conv(x)) + skip(x).

    Attributes:
      features: channels of the output.
      stride: of the 3x3 convolution.
      act: called after each of the two.
      unit: makes convolutions.
    """

    features: int
    stride: int
    act: Callable[[Array], Array]
    unit: ConvUnit

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Returns the block's output."""
        c = x.shape[-1]
        y = self.unit(x, c, 3, stride=self.stride, groups=c, name="{}1")
        y = self.unit(self.act(y), self.features, 1, name="{}2")
        return self.act(y)


class MobileNetV1(nn.Module):
    """A convolution, stages of separable ones, an average, a linear head.

    Layers are called conv, norm, stage1_block0/conv1, ... and head, and bypasses
    stage1_block0/skip1, ... Every conv1 in a block sees single channels: its kernel has
    the shape [3, 3, 1, c]. With 1000 classes there are 4,231,976 parameters, with 10
    classes 3,217,226.

    Attributes:
      blocks: how many there are in each stage.
      features: channels of each stage.
      strides: of the first convolution, and of the first block of each stage: (1, 1, 2,
        2, 2, 2) for images of 32x32 or 64x64 pixels.
      width: channels of the first convolution.
      classes: number of outputs.
      act: any function of one array.
      conv: makes the convolutions; called with `feature_group_count` in blocks.
      norm: makes the normalisations; called with `use_running_average`.
      skip: makes a bypass of each convolution in the blocks, whose output is added
        before the activation; called as `skip(features, stride=stride, name="skip1")`.
        None for none.
      dense: makes the head.
      dtype: what the layers compute in; None for that of images and parameters
        together.

    Deviations:
      The paper's table lists a stride of 2 for the last block, whose output is as large
      as its input; as in all code, it is 1.

    References:
      Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam, MobileNets:
      Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017,
      arXiv:1704.04861, table 1. The strides for small images were read in
      github.com/kuangliu/pytorch-cifar.
    """

    blocks: tuple[int, ...] = (1, 2, 2, 6, 2)
    features: tuple[int, ...] = (64, 128, 256, 512, 1024)
    strides: tuple[int, ...] = (2, 1, 2, 2, 2, 2)
    width: int = 32
    classes: int = 1000
    act: Callable[[Array], Array] = nn.relu
    conv: ModuleFactory = nn.Conv
    norm: ModuleFactory = layers.BATCH_NORM
    skip: ModuleFactory | None = None
    dense: ModuleFactory = nn.Dense
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Refuses stages without a size or stride."""
        _check(self)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Returns logits; in training, normalises by the batch."""
        unit = layers.bind(self, train=train)
        first, *strides = self.strides
        x = unit(images, self.width, 3, stride=first, skip=None, name="{}")
        x = self.act(x)
        for size, stride, name in layers.stages(
            self.blocks, self.features, tuple(strides)
        ):
            x = Separable(size, stride, act=self.act, unit=unit, name=name)(x)
        return layers.classify(x, self.classes, dense=self.dense)


class InvertedResidual(nn.Module):
    """A wide 3x3 convolution of single channels between two narrow ends.

    A 1x1 convolution, conv1, makes the input wider; conv2 sees every channel by itself;
    a 1x1 convolution, conv3, makes the output narrow, with no activation after it. Each
    has a bypass, if there are any, around it and its normalisation. Where the shape
    stays, the input is added to the output.

    Attributes:
      features: channels of the output.
      stride: of the 3x3 convolution.
      expand: how many times wider the middle is than the input; at 1 there is no conv1.
      act: called after all but the last.
      unit: makes convolutions.
    """

    features: int
    stride: int
    expand: int
    act: Callable[[Array], Array]
    unit: ConvUnit

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Returns the block's output."""
        y, wide = x, self.expand * x.shape[-1]
        if self.expand != 1:
            y = self.act(self.unit(y, wide, 1, name="{}1"))
        y = self.unit(y, wide, 3, stride=self.stride, groups=wide, name="{}2")
        y = self.unit(self.act(y), self.features, 1, name="{}3")
        return x + y if x.shape == y.shape else y


class MobileNetV2(nn.Module):
    """A convolution, stages of inverted residuals, a 1x1 convolution, a linear head.

    Layers are called conv, norm, stage1_block0/conv2, ..., last_conv, last_norm and
    head, and bypasses stage1_block0/skip2, ... and last_skip. Every conv2 sees single
    channels: its kernel has the shape [3, 3, 1, c]. With 1000 classes there are
    3,504,872 parameters, with 10 classes 2,236,682.

    Attributes:
      blocks: how many there are in each stage.
      features: channels of each stage.
      strides: of the first convolution, and of the first block of each stage: (1, 1, 1,
        2, 2, 1, 2, 1) for images of 32x32 or 64x64 pixels.
      width: channels of the first convolution.
      last: channels of the last convolution.
      expand: how many times wider blocks are within, all but the first.
      classes: number of outputs.
      act: any function of one array.
      conv: makes the convolutions; called with `feature_group_count` in blocks.
      norm: makes the normalisations; called with `use_running_average`.
      skip: makes a bypass of each convolution but the first, which sees images; what it
        returns is added to what is normalised. Called as `skip(features,
        stride=stride, name="skip1")`. None for none.
      dense: makes the head.
      dtype: what the layers compute in; None for that of images and parameters
        together.

    Deviations:
      ReLU for the paper's ReLU6 (`act=nn.relu6`), as in most code for small images.
      There is no dropout before the head. Blocks that change the number of channels
      only have no shortcut, as in the paper; pytorch-cifar, of which the strides for
      small images are, gives them a convolution.

    References:
      Sandler, Howard, Zhu, Zhmoginov, Chen, MobileNetV2: Inverted Residuals and Linear
      Bottlenecks, 2018, arXiv:1801.04381, table 2. The strides for small images were
      read in github.com/kuangliu/pytorch-cifar.
    """

    blocks: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1)
    features: tuple[int, ...] = (16, 24, 32, 64, 96, 160, 320)
    strides: tuple[int, ...] = (2, 1, 2, 2, 2, 1, 2, 1)
    width: int = 32
    last: int = 1280
    expand: int = 6
    classes: int = 1000
    act: Callable[[Array], Array] = nn.relu
    conv: ModuleFactory = nn.Conv
    norm: ModuleFactory = layers.BATCH_NORM
    skip: ModuleFactory | None = None
    dense: ModuleFactory = nn.Dense
    dtype: DTypeLike | None = None

    def __post_init__(self) -> None:
        """Refuses stages without a size or stride."""
        _check(self)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Returns logits; in training, normalises by the batch."""
        unit = layers.bind(self, train=train)
        first, *strides = self.strides
        x = unit(images, self.width, 3, stride=first, skip=None, name="{}")
        x, expand = self.act(x), 1
        for size, stride, name in layers.stages(
            self.blocks, self.features, tuple(strides)
        ):
            x = InvertedResidual(
                size, stride, expand, act=self.act, unit=unit, name=name
            )(x)
            expand = self.expand
        x = self.act(unit(x, self.last, 1, name="last_{}"))
        return layers.classify(x, self.classes, dense=self.dense)


def _check(network: MobileNetV1 | MobileNetV2) -> None:
    layers.check_lengths(
        blocks=network.blocks,
        features=network.features,
        **{"strides[1:]": network.strides[1:]},
    )
