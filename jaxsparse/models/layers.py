"""What networks are made of: a convolution with all that belongs to it, and a head.

A `unit` is bound once in a network to the layers that were injected there, so that one
place knows where a normalisation and a bypass belong and what they are called.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

MOMENTUM = 0.9  # of running statistics
BATCH_NORM = functools.partial(nn.BatchNorm, momentum=MOMENTUM, epsilon=1e-5)

# Makes a layer: linen's own class, or whatever is called alike.
ModuleFactory = Callable[..., nn.Module]
# `unit`, bound to layers.
ConvUnit = Callable[..., Array]


def conv_unit(
    x: Float[Array, "b h w i"],
    features: int,
    size: int,
    *,
    stride: int = 1,
    groups: int = 1,
    name: str,
    conv: ModuleFactory,
    norm: ModuleFactory | None,
    skip: ModuleFactory | None,
) -> Float[Array, "b h2 w2 o"]:
    """Computes norm(conv(x)) + skip(x): a convolution and what goes around it.

    Every side is padded by size // 2 pixels, whatever the stride. "SAME" pads an even
    image by (0, 1) under stride 2 and so samples other pixels than PyTorch's padding,
    in which all published numbers were computed.

    Args:
      x: images or feature maps.
      features: channels of the output.
      size: pixels along a side of the kernel, odd.
      stride: every how many pixels there is an output, along h and w.
      groups: of channels, each of which sees itself only.
      name: of the layers, "{}" standing for conv, norm and skip.
      conv: makes the convolution, already given its dtype and whether it has a bias.
      norm: makes the normalisation, already told whether this is training; None for
        none.
      skip: makes what bypasses both, as `skip(features, stride=stride, name=...)`; None
        for none.

    Returns:
      The maps, before any activation.
    """
    layer = conv(
        features,
        (size, size),
        strides=(stride, stride),
        padding=((size // 2, size // 2),) * 2,
        name=name.format("conv"),
        **({"feature_group_count": groups} if groups > 1 else {}),
    )
    y = layer(x)
    if norm is not None:
        y = norm(name=name.format("norm"))(y)
    if skip is None:
        return y
    return y + skip(features, stride=stride, name=name.format("skip"))(x)


def bind(network: Any, *, train: bool, use_bias: bool = False) -> ConvUnit:
    """Binds `unit` to what was injected into a network.

    Args:
      network: a module with the fields conv, norm, skip and dtype.
      train: whether to normalise by the batch.
      use_bias: whether convolutions have biases.

    Returns:
      The function, of which callers may still replace `norm` and `skip`.
    """
    norm = network.norm
    if norm is not None:
        norm = functools.partial(
            norm, use_running_average=not train, dtype=network.dtype
        )
    conv = functools.partial(network.conv, use_bias=use_bias, dtype=network.dtype)
    return functools.partial(conv_unit, conv=conv, norm=norm, skip=network.skip)


def stages(
    blocks: tuple[int, ...], features: tuple[int, ...], strides: tuple[int, ...]
) -> Iterator[tuple[int, int, str]]:
    """Lists the blocks of a network from the first to the last.

    Args:
      blocks: how many there are in each stage.
      features: of the blocks of each stage.
      strides: of the first block of each stage; the others have 1.

    Yields:
      Features, stride and name of each block.

    Examples:
      >>> list(stages((1, 2), (4, 8), (1, 2)))
      [(4, 1, 'stage1_block0'), (8, 2, 'stage2_block0'), (8, 1, 'stage2_block1')]
    """
    every = zip(blocks, features, strides, strict=True)
    for stage, (count, size, stride) in enumerate(every, start=1):
        for i in range(count):
            yield size, stride if i == 0 else 1, f"stage{stage}_block{i}"


def check_lengths(**fields: tuple[int, ...]) -> None:
    """Refuses tuples of unequal lengths.

    Args:
      **fields: what a network has for each of its stages, by name.

    Raises:
      ValueError: naming the fields.
    """
    if len({len(value) for value in fields.values()}) > 1:
        raise ValueError(
            f"{', '.join(fields)}: got {', '.join(map(str, fields.values()))}; wanted "
            "equal lengths, an entry for each stage"
        )


def classify(
    x: Float[Array, "b h w c"], classes: int, *, dense: ModuleFactory
) -> Float[Array, "b k"]:
    """Averages over places and maps to logits, both in float32 or wider.

    Args:
      x: the last feature maps.
      classes: number of outputs.
      dense: makes the layer called "head".

    Returns:
      Logits.

    Raises:
      ValueError: if there are no places, as pooling has left none of a small image.
    """
    if 0 in x.shape[1:3]:
        raise ValueError(
            f"images: the last maps have the shape {x.shape}; wanted one place at "
            "least; give larger images, or fewer stages"
        )
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32)).mean(axis=(1, 2))
    return dense(classes, dtype=x.dtype, name="head")(x)
