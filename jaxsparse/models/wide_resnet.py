"""Wide residual networks: few pre-activation blocks with many channels."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsparse.models import blocks, layers
from jaxsparse.models.layers import ModuleFactory


class WideResNet(nn.Module):
    """A convolution, three stages of pre-activation blocks, and a linear head.

    Each stage has (depth - 4) / 6 blocks; global average pooling precedes the head.
    Layers are named conv, stage1_block0/norm1, stage1_block0/conv1, ..., norm and head;
    ghost skip connections stage1_block0/skip1, ... On 32x32x3 images with 10 classes
    WRN-28-10 has 36,479,194 parameters, WRN-16-8 10,961,370 and WRN-22-2 1,079,642.

    Attributes:
      depth: number of convolutions, including those of the three shortcuts: 6n + 4, 10
        or more.
      widen: ratio of the channels of the first stage to `width`; the other stages have
        two and four times the channels of the first.
      width: channels of the first convolution.
      classes: number of outputs.
      act: activation function of one array.
      conv: creates the convolutions.
      norm: creates the normalization layers; called with `use_running_average`.
      skip: creates a ghost skip connection around each convolution in the blocks,
        except shortcuts; its output is added to that of the convolution. Called as
        `skip(features, stride=stride, name="skip1")`. None to omit them.
      dense: creates the head.
      dtype: dtype in which the layers compute; None for the promoted dtype of images
        and parameters. The head computes in float32 or wider.
      widths: units of layers by name, in place of those that other fields define, such
        as {"stage1_block0/conv1": 5}; None for none. Layers whose outputs are added
        need equal numbers.

    Deviations:
      There is no dropout, which the paper uses in some of its runs.

    References:
      Zagoruyko, Komodakis, Wide Residual Networks, 2016, arXiv:1605.07146, table 1. The
      order of the layers, and the shortcuts that start after the first activation
      function, follow the authors' code.
    """

    depth: int = 28
    widen: int = 10
    width: int = 16
    classes: int = 10
    act: Callable[[Array], Array] = nn.relu
    conv: ModuleFactory = nn.Conv
    norm: ModuleFactory = layers.BATCH_NORM
    skip: ModuleFactory | None = None
    dense: ModuleFactory = nn.Dense
    dtype: DTypeLike | None = None
    widths: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError if the depth is not 6n + 4, or less than 10."""
        if self.depth < 10 or self.depth % 6 != 4:
            raise ValueError(
                f"depth: expected 6n + 4, such as 16, 22, 28 or 40, got {self.depth}"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Computes logits [b, k]; in training, normalizes by batch statistics."""
        norm = functools.partial(
            self.norm, use_running_average=not train, dtype=self.dtype
        )
        # Pre-activation: blocks normalize before a convolution, not after it.
        unit = dataclasses.replace(layers.bind(self, train=train), norm=None)
        x = unit(images, self.width, 3, has_skip=False, name="{}")
        counts = ((self.depth - 4) // 6,) * 3
        sizes = tuple(self.width * self.widen * 2**stage for stage in range(3))
        before = self.width
        for width, stride, name in layers.stages(counts, sizes, (1, 2, 2)):
            fits, own = stride == 1 and before == width, layers.within(unit, name)
            x = blocks.PreActivation(
                width, stride, fits, act=self.act, norm=norm, unit=own, name=name
            )(x)
            before = width
        x = self.act(norm(name="norm")(x))
        layers.check_widths(self)
        return layers.classify(x, self.classes, dense=self.dense)
