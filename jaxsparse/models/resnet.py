"""Residual networks for ImageNet and CIFAR, with basic or bottleneck blocks."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsparse.models import blocks as blocks_lib
from jaxsparse.models import layers
from jaxsparse.models.layers import ModuleFactory

BLOCKS = {"basic": blocks_lib.BasicBlock, "bottleneck": blocks_lib.Bottleneck}
EXPANSIONS = {"basic": 1, "bottleneck": 4}  # outputs of a block by its `features`
STEMS = {"imagenet": (7, 2), "cifar": (3, 1)}  # size and stride of the convolution


class ResNet(nn.Module):
    """A convolution, stages of residual blocks, global average pooling, a linear head.

    Layers are named conv, norm, stage1_block0/conv1, ... and head; ghost skip
    connections stage1_block0/skip1, ... The usual networks and their numbers of
    parameters:

        blocks           block         stem "imagenet", 1000    stem "cifar", 10 classes
        (2, 2, 2, 2)     "basic"       ResNet-18   11,689,512   11,173,962
        (3, 4, 6, 3)     "basic"       ResNet-34   21,797,672   21,282,122
        (3, 4, 6, 3)     "bottleneck"  ResNet-50   25,557,032   23,520,842
        (3, 4, 23, 3)    "bottleneck"  ResNet-101  44,549,160   42,512,970
        (3, 8, 36, 3)    "bottleneck"  ResNet-152  60,192,808   58,156,618

    Attributes:
      blocks: number of blocks in each stage; all stages but the first halve height and
        width.
      features: channels of the blocks in each stage; the first convolution has the
        channels of the first stage.
      block: "basic" or "bottleneck"; the output of a bottleneck has four times
        `features` channels.
      stem: "imagenet" for a 7x7 convolution with stride 2 and 3x3 max pooling, "cifar"
        for a 3x3 convolution with stride 1.
      shortcut: shortcut where the shape changes: "projection" for a 1x1 convolution
        with normalization, or "identity" for every second pixel, padded with channels
        of zeros (He et al., option A).
      classes: number of outputs.
      act: activation function of one array.
      conv: creates the convolutions.
      norm: creates the normalization layers; called with `use_running_average`. For
        example a `functools.partial` of linen's BatchNorm, with an `axis_name` if
        statistics are synchronized.
      skip: creates a ghost skip connection around each convolution in the blocks,
        except projection shortcuts; its output is added before the activation function.
        Called as `skip(features, stride=stride, name="skip1")`. None to omit them.
      dense: creates the head.
      dtype: dtype in which the layers compute; None for the promoted dtype of images
        and parameters. The head computes in float32 or wider.
      widths: units of layers by name, in place of those that other fields define, such
        as {"stage1_block0/conv1": 5}; None for none. Layers whose outputs are added
        need equal numbers.

    Deviations:
      The 3x3 convolution of a bottleneck has the stride, as in all code with which
      results on sparse training were obtained; in the paper, the first 1x1 convolution
      has it. As everywhere in linen, the running variance of BatchNorm averages biased
      batch variances, while PyTorch averages unbiased ones. The momentum 0.9 is
      equivalent to 0.1 in PyTorch. The paper has no network of four stages for CIFAR;
      the stem "cifar" is that of most later work.

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
    widths: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        """Validates the block, stem, shortcut and lengths; raises ValueError."""
        for field, known in (
            ("block", tuple(BLOCKS)),
            ("stem", tuple(STEMS)),
            ("shortcut", blocks_lib.SHORTCUTS),
        ):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"{field}: expected one of {known}, got {getattr(self, field)!r}"
                )
        layers.check_lengths(blocks=self.blocks, features=self.features)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Computes logits [b, k]; in training, normalizes by batch statistics."""
        unit = layers.bind(self, train=train)
        block = functools.partial(
            BLOCKS[self.block], shortcut=self.shortcut, act=self.act
        )
        size, stride = STEMS[self.stem]
        x = unit(
            images, self.features[0], size, stride=stride, has_skip=False, name="{}"
        )
        x = self.act(x)
        if self.stem == "imagenet":
            # PyTorch's padding; "SAME" would pad an even image by (0, 1).
            edges = ((1, 1), (1, 1))
            x = nn.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding=edges)
        strides = (1,) + (2,) * (len(self.blocks) - 1)
        before, growth = self.features[0], EXPANSIONS[self.block]
        for width, stride, name in layers.stages(self.blocks, self.features, strides):
            fits = stride == 1 and before == growth * width
            own = layers.within(unit, name)
            x = block(width, stride, fits, unit=own, name=name)(x)
            before = growth * width
        layers.check_widths(self)
        return layers.classify(x, self.classes, dense=self.dense)


def ImageNetResNet(
    blocks: tuple[int, ...] = (3, 4, 6, 3), *, width: int = 64, **fields: Any
) -> ResNet:
    """Creates a `ResNet` whose channels double from stage to stage.

    ResNet-50 with 1000 classes has 25,557,032 parameters, including 25,502,912 in
    kernels.

    Args:
      blocks: number of blocks in each stage.
      width: channels of the first stage.
      **fields: other fields of `ResNet`, such as `block="basic"` for ResNet-18 and
        ResNet-34.

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
    """Creates the `ResNet` for CIFAR: three stages of (depth - 2) / 6 blocks.

    On 32x32x3 images ResNet-20 has 272,474 parameters, including 270,896 in kernels;
    with `shortcut="identity"` it has 269,722 parameters.

    Args:
      depth: number of layers with weights, without shortcuts, if blocks are basic: 6n +
        2, 8 or more.
      width: channels of the first stage; the other stages have two and four times as
        many.
      block: "basic", or "bottleneck" for the same number of blocks with three
        convolutions each, as in the network that the code of ToST calls ResNet-104.
      classes: number of outputs.
      **fields: other fields of `ResNet`, such as `shortcut="identity"`.

    Returns:
      The network.

    Raises:
      ValueError: if `depth` is not 6n + 2, or less than 8.

    Deviations:
      Shortcuts are projections by default, as in open_lth and ToST. In the paper,
      shortcuts have no weights on CIFAR (`shortcut="identity"`).

    References:
      He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, 2016,
      arXiv:1512.03385, section 4.2.
      Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse Neural Network Better with Any
      Mask, 2022, arXiv:2206.12755, whose code uses bottlenecks from depth 54 on.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(
            f"depth: expected 6n + 2, such as 8, 14, 20, 32, 44, 56 or 110, got {depth}"
        )
    return ImageNetResNet(
        ((depth - 2) // 6,) * 3,
        width=width,
        block=block,
        stem="cifar",
        classes=classes,
        **fields,
    )
