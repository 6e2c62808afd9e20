"""Convolution and pooling in other words: for CPUs, on which XLA's own are slow.

XLA's convolution runs many times slower inside `lax.scan` on CPUs, and the gradient of
its max pooling is slow everywhere there. A convolution is a matrix product of patches
of the images, and pooling a choice between neighbours; both are fast wherever they
stand. Results, and gradients too, differ in the last bits only.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


def convolve(
    lhs: Float[Array, "b h w i"],
    rhs: Float[Array, "kh kw j o"],
    window_strides: Any,
    padding: Any,
    *,
    lhs_dilation: Any = None,
    rhs_dilation: Any = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Float[Array, "b H W o"]:
    """Convolves images by a matrix product: `nn.Conv(conv_general_dilated=convolve)`.

    Where every channel is convolved by itself, as in MobileNets, no product mixes them:
    images are shifted, multiplied by the kernel's pixels and summed.

    Args:
      lhs: images.
      rhs: kernel.
      window_strides: steps along h and w.
      padding: "SAME", "VALID", or pairs of pixels before and after, for h and w.
      lhs_dilation: None or ones; there is no dilation here.
      rhs_dilation: None or ones.
      dimension_numbers: not looked at; always those of linen, NHWC and HWIO.
      feature_group_count: 1, or the channels of the images; nothing between.
      precision: of the product, as in `jax.lax.dot`.
      preferred_element_type: of the product, as in `jax.lax.dot`.

    Returns:
      The maps.

    Raises:
      ValueError: for dilations, and for groups of more than one channel.
    """
    del dimension_numbers
    steps, size = tuple(window_strides), rhs.shape[:2]
    dilations = (*(lhs_dilation or ()), *(rhs_dilation or ()))
    single = rhs.shape[2] == 1
    if any(rate != 1 for rate in dilations) or not (feature_group_count == 1 or single):
        raise ValueError(
            f"convolve: came feature_group_count {feature_group_count} for "
            f"{lhs.shape[-1]} channels and dilations {dilations}; wanted 1 or all of "
            "them, and 1 everywhere; use nn.Conv's own convolution"
        )
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(lhs.shape[1:3], size, steps, padding)
    padded = jnp.pad(lhs, ((0, 0), *padding, (0, 0)))
    height, width = (
        (length - window) // step + 1
        for length, window, step in zip(padded.shape[1:3], size, steps, strict=True)
    )
    views = [
        padded[
            :,
            row : row + (height - 1) * steps[0] + 1 : steps[0],
            column : column + (width - 1) * steps[1] + 1 : steps[1],
        ]
        for row in range(size[0])
        for column in range(size[1])
    ]
    if feature_group_count != 1:
        return _each_channel(views, rhs, preferred_element_type or lhs.dtype)
    return jnp.matmul(
        jnp.concatenate(views, axis=-1),
        rhs.reshape(-1, rhs.shape[-1]),
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


def _each_channel(
    views: list[Float[Array, "b H W i"]], rhs: Float[Array, "kh kw 1 o"], dtype: Any
) -> Float[Array, "b H W o"]:
    """Sums shifted images, each times its pixel of the kernel, in float32 or wider."""
    wide = jnp.promote_types(dtype, jnp.float32)
    pixels = rhs.reshape(len(views), 1, 1, 1, -1).astype(wide)
    each = rhs.shape[-1] // views[0].shape[-1]
    terms = (
        jnp.repeat(view, each, axis=-1).astype(wide) * pixel
        for view, pixel in zip(views, pixels, strict=True)
    )
    return sum(terms, jnp.zeros((), wide)).astype(dtype)


def pool(x: Float[Array, "b h w c"]) -> Float[Array, "b H W c"]:
    """Takes the maxima of 2x2 windows; an odd last row or column is left out.

    Where a maximum is attained twice, the first gets all of the gradient, row by row,
    as from `nn.max_pool`. `jnp.max` would give each a part, and other gradients to the
    weights that a mask has not: on constant backgrounds ties are common.
    """
    b, h, w, c = x.shape
    even = x[:, : h - h % 2, : w - w % 2].reshape(b, h // 2, 2, w // 2, 2, c)
    rows = _larger(even[:, :, :, :, 0], even[:, :, :, :, 1])
    return _larger(rows[:, :, 0], rows[:, :, 1])


def _larger(first: Float[Array, "*n"], second: Float[Array, "*n"]) -> Array:
    """Chooses the first where they are equal, and what is not a number anywhere."""
    return jnp.where((second > first) | jnp.isnan(second), second, first)


def pool_windows(x: Float[Array, "b h w c"]) -> Float[Array, "b H W c"]:
    """Takes the maxima of 2x2 windows as linen does, the networks' default."""
    return nn.max_pool(x, (2, 2), strides=(2, 2))
