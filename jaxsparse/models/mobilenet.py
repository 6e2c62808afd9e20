"""MobileNets: depthwise convolutions followed by 1x1 convolutions.

By default, both networks have the strides for ImageNet. Small images would shrink to
nothing before the last stage; code for CIFAR therefore replaces the first one or two of
these strides by 1.
"""

from collections.abc import Callable, Mapping

from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsparse.models import layers
from jaxsparse.models.layers import ConvUnit, ModuleFactory


class Separable(nn.Module):
    """A depthwise 3x3 convolution, conv1, followed by a 1x1 convolution, conv2.

    Each of the two computes norm(conv(x)), plus skip(x) if the network has ghost skip
    connections.

    Attributes:
      features: channels of the output.
      stride: stride of the 3x3 convolution.
      act: activation function, applied after each of the two.
      unit: the `layers.ConvUnit` of the network, from `layers.bind`.
    """

    features: int
    stride: int
    act: Callable[[Array], Array]
    unit: ConvUnit

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Computes the output of the block."""
        c = x.shape[-1]
        y = layers.depthwise(self.unit, c)(x, c, 3, stride=self.stride, name="{}1")
        y = self.unit(self.act(y), self.features, 1, name="{}2")
        return self.act(y)


class MobileNetV1(nn.Module):
    """A convolution, stages of separable convolutions, and a linear head.

    Global average pooling precedes the head. Layers are named conv, norm,
    stage1_block0/conv1, ... and head; ghost skip connections stage1_block0/skip1, ...
    Every conv1 in a block is depthwise: its kernel has the shape [3, 3, 1, c]. With
    1000 classes there are 4,231,976 parameters, with 10 classes 3,217,226.

    Attributes:
      blocks: number of blocks in each stage.
      features: channels of each stage.
      strides: stride of the first convolution, then of the first block of each stage;
        (1, 1, 2, 2, 2, 2) for images of 32x32 or 64x64 pixels.
      width: channels of the first convolution.
      classes: number of outputs.
      act: activation function of one array.
      conv: creates the convolutions; called with `feature_group_count` in blocks.
      norm: creates the normalization layers; called with `use_running_average`.
      skip: creates a ghost skip connection around each convolution in the blocks, whose
        output is added before the activation function; called as
        `skip(features, stride=stride, name="skip1")`. None to omit them.
      dense: creates the head.
      dtype: dtype in which the layers compute; None for the promoted dtype of images
        and parameters. The head computes in float32 or wider.
      widths: units of layers by name, in place of those that other fields define, such
        as {"stage1_block0/conv2": 5}; None for none. Layers whose outputs are added
        need equal numbers.

    Deviations:
      The table of the paper lists a stride of 2 for the last block, although its output
      is as large as its input; here it is 1, as in all implementations.

    References:
      Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam, MobileNets:
      Efficient Convolutional Neural Networks for Mobile Vision Applications, 2017,
      arXiv:1704.04861, table 1. The strides for small images are those of
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
    widths: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError if a stage has no number of blocks, channels or stride."""
        _check(self)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Computes logits [b, k]; in training, normalizes by batch statistics."""
        unit = layers.bind(self, train=train)
        first, *strides = self.strides
        x = unit(images, self.width, 3, stride=first, has_skip=False, name="{}")
        x = self.act(x)
        for size, stride, name in layers.stages(
            self.blocks, self.features, tuple(strides)
        ):
            own = layers.within(unit, name)
            x = Separable(size, stride, act=self.act, unit=own, name=name)(x)
        layers.check_widths(self)
        return layers.classify(x, self.classes, dense=self.dense)


class InvertedResidual(nn.Module):
    """A depthwise 3x3 convolution of many channels between two 1x1 convolutions.

    conv1 (1x1) expands the channels, conv2 (3x3) is depthwise, and conv3 (1x1) reduces
    the channels, without an activation function after it. Each is followed by
    normalization. If the network has ghost skip connections, there is one around each
    convolution and its normalization.

    Attributes:
      features: channels of the output.
      stride: stride of the 3x3 convolution.
      expand: ratio of the channels of conv2 to those of the input; without conv1 if it
        is 1.
      has_shortcut: whether the input is added to the output, which then has the same
        shape.
      act: activation function, applied after all convolutions but the last.
      unit: the `layers.ConvUnit` of the network, from `layers.bind`.
    """

    features: int
    stride: int
    expand: int
    has_shortcut: bool
    act: Callable[[Array], Array]
    unit: ConvUnit

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Computes the output of the block."""
        y, wide = x, self.expand * x.shape[-1]
        if self.expand != 1:
            y = self.act(self.unit(y, wide, 1, name="{}1"))
            wide = y.shape[-1]
        depthwise = layers.depthwise(self.unit, wide)
        y = depthwise(y, wide, 3, stride=self.stride, name="{}2")
        y = self.unit(self.act(y), self.features, 1, name="{}3")
        return x + y if self.has_shortcut else y


class MobileNetV2(nn.Module):
    """A convolution, stages of inverted residuals, a 1x1 convolution, a linear head.

    Global average pooling precedes the head. Layers are named conv, norm,
    stage1_block0/conv2, ..., last_conv, last_norm and head; ghost skip connections
    stage1_block0/skip2, ... and last_skip. Every conv2 is depthwise: its kernel has the
    shape [3, 3, 1, c]. With 1000 classes there are 3,504,872 parameters, with 10
    classes 2,236,682.

    Attributes:
      blocks: number of blocks in each stage.
      features: channels of each stage.
      strides: stride of the first convolution, then of the first block of each stage;
        (1, 1, 1, 2, 2, 1, 2, 1) for images of 32x32 or 64x64 pixels.
      width: channels of the first convolution.
      last: channels of the last convolution.
      expand: ratio of the channels of conv2 to those of the input, in all blocks but
        the first, where it is 1.
      classes: number of outputs.
      act: activation function of one array.
      conv: creates the convolutions; called with `feature_group_count` in blocks.
      norm: creates the normalization layers; called with `use_running_average`.
      skip: creates a ghost skip connection around each convolution but the first, whose
        input is the images; its output is added after the normalization. Called as
        `skip(features, stride=stride, name="skip1")`. None to omit them.
      dense: creates the head.
      dtype: dtype in which the layers compute; None for the promoted dtype of images
        and parameters. The head computes in float32 or wider.
      widths: units of layers by name, in place of those that other fields define, such
        as {"stage1_block0/conv2": 5}; None for none. Layers whose outputs are added
        need equal numbers.

    Deviations:
      ReLU instead of the paper's ReLU6 (`act=nn.relu6`), as in most code for small
      images. There is no dropout before the head. As in the paper, blocks that change
      only the number of channels have no shortcut; pytorch-cifar, the source of the
      strides for small images, gives them a convolution.

    References:
      Sandler, Howard, Zhu, Zhmoginov, Chen, MobileNetV2: Inverted Residuals and Linear
      Bottlenecks, 2018, arXiv:1801.04381, table 2. The strides for small images are
      those of github.com/kuangliu/pytorch-cifar.
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
    widths: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError if a stage has no number of blocks, channels or stride."""
        _check(self)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Computes logits [b, k]; in training, normalizes by batch statistics."""
        unit = layers.bind(self, train=train)
        first, *strides = self.strides
        x = unit(images, self.width, 3, stride=first, has_skip=False, name="{}")
        x, expand = self.act(x), 1  # The first block does not expand (table 2).
        before = self.width
        for size, stride, name in layers.stages(
            self.blocks, self.features, tuple(strides)
        ):
            has_shortcut = stride == 1 and size == before
            own = layers.within(unit, name)
            x = InvertedResidual(
                size, stride, expand, has_shortcut, act=self.act, unit=own, name=name
            )(x)
            expand, before = self.expand, size
        x = self.act(unit(x, self.last, 1, name="last_{}"))
        layers.check_widths(self)
        return layers.classify(x, self.classes, dense=self.dense)


def _check(network: MobileNetV1 | MobileNetV2) -> None:
    layers.check_lengths(
        blocks=network.blocks,
        features=network.features,
        **{"strides[1:]": network.strides[1:]},
    )
