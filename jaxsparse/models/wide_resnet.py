"""Wide residual networks: few blocks of many channels, pre-activated."""

import functools
from collections.abc import Callable

from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsparse.models import blocks, layers
from jaxsparse.models.layers import ModuleFactory


class WideResNet(nn.Module):
    """A convolution, three stages of (depth - 4) / 6 pre-activated blocks, a head.

    Layers are called conv, stage1_block0/norm1, stage1_block0/conv1, ..., norm and
    head, and bypasses stage1_block0/skip1, ... On 32x32x3 images with 10 classes
    WRN-28-10 has 36,479,194 parameters, WRN-16-8 10,961,370 and WRN-22-2 1,079,642.

    Attributes:
      depth: convolutions, those of the three shortcuts included; 6n + 4.
      widen: how many times the channels of the first convolution the first stage has;
        the others have two and four times as many.
      width: channels of the first convolution.
      classes: number of outputs.
      act: any function of one array.
      conv: makes the convolutions.
      norm: makes the normalisations; called with `use_running_average`.
      skip: makes a bypass of each convolution in the blocks, shortcuts aside, whose
        output is added to the convolution's; called as `skip(features, stride=stride,
        name="skip1")`. None for none.
      dense: makes the head.
      dtype: what the layers compute in; None for that of images and parameters
        together.

    Deviations:
      There is no dropout, which the paper has in some of its runs.

    References:
      Zagoruyko, Komodakis, Wide Residual Networks, 2016, arXiv:1605.07146, table 1; the
      order of layers and the shortcuts, which begin after the first activation, were
      read in the authors' code.
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

    def __post_init__(self) -> None:
        """Refuses depths that there are not."""
        if self.depth < 10 or self.depth % 6 != 4:
            raise ValueError(
                f"depth: got {self.depth}; wanted 6n + 4, such as 16, 22, 28 or 40"
            )
        super().__post_init__()

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b k"]:
        """Returns logits; in training, normalises by the batch."""
        norm = functools.partial(
            self.norm, use_running_average=not train, dtype=self.dtype
        )
        unit = functools.partial(layers.bind(self, train=train), norm=None)
        x = unit(images, self.width, 3, skip=None, name="{}")
        counts = ((self.depth - 4) // 6,) * 3
        sizes = tuple(self.width * self.widen * 2**stage for stage in range(3))
        for width, stride, name in layers.stages(counts, sizes, (1, 2, 2)):
            x = blocks.PreActivation(
                width, stride, act=self.act, norm=norm, unit=unit, name=name
            )(x)
        x = self.act(norm(name="norm")(x))
        return layers.classify(x, self.classes, dense=self.dense)
