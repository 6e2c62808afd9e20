"""Shared parts of the networks: a convolutional unit, stages, and the output layer.

A network makes one `ConvUnit` of the layers injected into it. The order of
convolution, normalization and ghost skip connection, and their names, are thus defined
in one place.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxsparse.models import normalization

MOMENTUM = 0.9  # of running statistics; 1 - MOMENTUM is PyTorch's momentum
BATCH_NORM = functools.partial(nn.BatchNorm, momentum=MOMENTUM, epsilon=1e-5)
FAST_BATCH_NORM = functools.partial(normalization.BatchNorm, **BATCH_NORM.keywords)

# Leaves whose last axis is the width of their layer.
WEIGHTS = frozenset(("kernel", "embedding", "tied_embedding"))

# Creates a layer: a linen class, or anything with the same call signature.
ModuleFactory = Callable[..., nn.Module]


@dataclasses.dataclass(frozen=True, eq=False)
class ConvUnit:
    """The unit of a network: norm(conv(x)) + skip(x).

    Attributes:
      conv: creates the convolution; already bound to its dtype and `use_bias`.
      norm: creates the normalization, already bound to training or evaluation mode;
        None to omit it.
      skip: creates the ghost skip connection, called as
        `skip(features, stride=stride, name=...)`; None to omit it.
      widths: channels of convolutions by name, in place of those asked for; None for
        none.
    """

    conv: ModuleFactory
    norm: ModuleFactory | None
    skip: ModuleFactory | None
    widths: Mapping[str, int] | None = None

    def __call__(
        self,
        x: Float[Array, "b h w i"],
        features: int,
        size: int,
        *,
        stride: int = 1,
        name: str,
        has_skip: bool = True,
    ) -> Float[Array, "b h2 w2 o"]:
        """Computes the unit's output, before any activation function.

        Every side is padded by size // 2 pixels, for any stride. With stride 2, "SAME"
        pads an even image by (0, 1) and therefore samples other pixels than PyTorch's
        padding, with which all published results were computed.

        Args:
          x: images or feature maps, [b, h, w, i].
          features: channels of the output.
          size: side of the kernel in pixels, odd.
          stride: stride along h and w.
          name: template of the layers' names, in which "{}" stands for conv, norm or
            skip.
          has_skip: whether the unit has the ghost skip connection, if the network has
            them.

        Returns:
          Feature maps, [b, h2, w2, o].
        """
        features = width_of(self.widths, name.format("conv"), features)
        layer = self.conv(
            features,
            (size, size),
            strides=(stride, stride),
            padding=((size // 2, size // 2),) * 2,
            name=name.format("conv"),
        )
        y = layer(x)
        if self.norm is not None:
            y = self.norm(name=name.format("norm"))(y)
        if self.skip is None or not has_skip:
            return y
        return y + self.skip(features, stride=stride, name=name.format("skip"))(x)


def bind(network: Any, *, train: bool, use_bias: bool = False) -> ConvUnit:
    """Makes the unit of a network from its layers.

    Args:
      network: a module with the fields `conv`, `norm`, `skip`, `dtype` and `widths`.
      train: whether normalization uses batch statistics instead of running statistics.
      use_bias: whether convolutions have biases.
    """
    norm = network.norm
    if norm is not None:
        norm = functools.partial(
            norm, use_running_average=not train, dtype=network.dtype
        )
    conv = functools.partial(network.conv, use_bias=use_bias, dtype=network.dtype)
    return ConvUnit(conv, norm, network.skip, network.widths)


def within(unit: ConvUnit, name: str) -> ConvUnit:
    """Gives a block the widths of its own layers.

    Args:
      unit: what `bind` returned, with the widths of the network.
      name: name of the block.
    """
    return dataclasses.replace(unit, widths=widths_within(unit.widths, name))


def widths_within(widths: Mapping[str, int] | None, name: str) -> dict[str, int]:
    """Selects the widths of the layers of a submodule, by their names in it.

    Args:
      widths: units of layers by name; None for none.
      name: name of the submodule.

    Examples:
      >>> widths_within({"block1/mlp1": 8, "head": 3}, "block1")
      {'mlp1': 8}
    """
    start = f"{name}/"
    return {
        layer.removeprefix(start): width
        for layer, width in (widths or {}).items()
        if layer.startswith(start)
    }


def width_of(widths: Mapping[str, int] | None, name: str, otherwise: int) -> int:
    """Returns the number of units of a layer.

    Args:
      widths: units of layers by name; None for none.
      name: name of the layer.
      otherwise: units of a layer that is not among them.

    Raises:
      ValueError: if the width is less than 1.
    """
    width = (widths or {}).get(name, otherwise)
    if width < 1:
        raise _wrong_width(name, width)
    return width


def check_widths(network: Any) -> None:
    """Validates the names of the widths of a network whose layers exist already.

    Args:
      network: a bound module with the field `widths`.

    Raises:
      ValueError: if there is no layer of a name, whose width is that of its kernel or
        embedding.
    """
    for name, width in (network.widths or {}).items():
        known: Any = network.variables["params"]
        for key in name.split("/"):
            known = known.get(key, {}) if hasattr(known, "get") else {}
        if not WEIGHTS & set(known):
            raise _wrong_width(name, width)


def _wrong_width(name: str, width: int) -> ValueError:
    return ValueError(
        "widths: expected numbers of 1 or more by the names of layers with weights, "
        f"got {name!r}: {width}; use the names of the parameters, such as 'conv1' for "
        "the leaf conv1/kernel"
    )


def depthwise(unit: ConvUnit, channels: int) -> ConvUnit:
    """Makes the convolution of a unit depthwise: each channel is convolved separately.

    Args:
      unit: what `bind` returned.
      channels: number of channels of the input.
    """
    conv = functools.partial(unit.conv, feature_group_count=channels)
    return dataclasses.replace(unit, conv=conv)


def stages(
    blocks: tuple[int, ...], features: tuple[int, ...], strides: tuple[int, ...]
) -> Iterator[tuple[int, int, str]]:
    """Lists the blocks of a network from input to output.

    Args:
      blocks: number of blocks in each stage.
      features: channels of the blocks of each stage.
      strides: stride of the first block of each stage; other blocks have stride 1.

    Yields:
      Channels, stride and name of each block.

    Examples:
      >>> list(stages((1, 2), (4, 8), (1, 2)))
      [(4, 1, 'stage1_block0'), (8, 2, 'stage2_block0'), (8, 1, 'stage2_block1')]
    """
    every = zip(blocks, features, strides, strict=True)
    for stage, (count, size, stride) in enumerate(every, start=1):
        for i in range(count):
            yield size, stride if i == 0 else 1, f"stage{stage}_block{i}"


def check_lengths(**fields: tuple[int, ...]) -> None:
    """Validates that fields with one entry per stage have equal lengths.

    Args:
      **fields: values of the fields by name.

    Raises:
      ValueError: if lengths differ, naming the fields.
    """
    if len({len(value) for value in fields.values()}) > 1:
        raise ValueError(
            f"{', '.join(fields)}: expected equal lengths, one entry per stage, got "
            f"{', '.join(map(str, fields.values()))}"
        )


def classify(
    x: Float[Array, "b h w c"], classes: int, *, dense: ModuleFactory
) -> Float[Array, "b k"]:
    """Averages over positions and computes logits, both in float32 or wider.

    Args:
      x: last feature maps, [b, h, w, c].
      classes: number of outputs.
      dense: creates the layer named "head".

    Returns:
      Logits, [b, k].

    Raises:
      ValueError: if h or w is 0, because pooling reduced a small image to nothing.
    """
    if 0 in x.shape[1:3]:
        raise ValueError(
            "images: expected final feature maps of at least one pixel, got shape "
            f"{x.shape}; use larger images or fewer stages"
        )
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean(axis=(1, 2))
    return dense(classes, dtype=x.dtype, name="head")(x)
