"""Convolution with explicit gradients that are fast on CPUs.

JAX differentiates a convolution into two other convolutions with other dimension
orders. XLA's CPU compiler has a fast implementation for one order only. It transposes
other orders to this one, but not inside loops and branches, where it uses a slow
implementation. For the gradient with respect to the kernel, the transposed copy also
recomputes the operations that produced the images, element by element and with strided
memory access. Here all three convolutions are written in the fast order, and the
gradient with respect to the kernel is summed over chunks of the batch that fit into the
cache. Convolutions of few channels are matrix products (`row_products`).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxsparse.models import row_products
from jaxsparse.models.batch_parts import sum_of_parts

ORDER = ("NHWC", "HWIO", "NHWC")
AT_ONCE = 16  # images per chunk

Pads = tuple[tuple[int, int], tuple[int, int]]


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
    """Convolves images, for `nn.Conv(conv_general_dilated=convolve)`.

    The results and gradients are those of linen's own convolution up to rounding.
    Gradients can be differentiated again, also in forward mode. The output itself can
    only be differentiated in reverse mode.

    1x1 kernels are computed as matrix products, and so are convolutions with few
    channels and stride 1 (`row_products`). Depthwise convolutions, as in
    MobileNets, are computed as sums of shifted images, each multiplied by one pixel of
    the kernel. Dilated and other grouped convolutions are passed on to JAX.

    If the compiler partitions batches over devices automatically, it has to gather the
    batch to form the chunks. Inside `pmap` and `shard_map(check_vma=False)` each device
    forms chunks of its own part.

    Args:
      lhs: images, [b, h, w, i].
      rhs: kernel, [kh, kw, i / groups, o].
      window_strides: strides along h and w.
      padding: "SAME", "VALID", or pairs of the numbers of pixels to add before and
        after, for h and w.
      lhs_dilation: dilation of the images along h and w, or None.
      rhs_dilation: dilation of the kernel along h and w, or None.
      dimension_numbers: ignored; the order is always that of linen, NHWC and HWIO.
      feature_group_count: number of groups of channels that are convolved separately.
      precision: precision of the products, passed on to `jax.lax.conv_general_dilated`.
      preferred_element_type: dtype in which to accumulate and return, or None, passed
        on to `jax.lax.conv_general_dilated`.

    Returns:
      Feature maps, [b, H, W, o].

    Raises:
      TypeError: if images and kernel do not match, with the message of JAX.
      ValueError: if images and kernel do not match, with the message of JAX.
    """
    del dimension_numbers
    steps, size = tuple(window_strides), rhs.shape[:2]
    library = functools.partial(
        lax.conv_general_dilated,
        window_strides=steps,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=ORDER,
        feature_group_count=feature_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    template = jax.eval_shape(library, lhs, rhs)  # also raises JAX's own errors
    dilated = any(rate != 1 for rate in (*(lhs_dilation or ()), *(rhs_dilation or ())))
    is_depthwise = feature_group_count == lhs.shape[-1]
    has_rule = feature_group_count == 1 or is_depthwise
    if dilated or not has_rule or 0 in template.shape:
        return library(lhs, rhs)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], size, steps, padding)
    pads = tuple((before, after) for before, after in padding)
    if feature_group_count != 1:
        views = _views(lhs, size, steps, pads)
        return _each_channel(views, rhs, template.dtype)
    if size == (1, 1):
        (view,) = _views(lhs, size, steps, pads)
        return jnp.matmul(
            view,
            rhs[0, 0],
            precision=precision,
            preferred_element_type=preferred_element_type,
        )
    return _convolve(lhs, rhs, steps, pads, precision, preferred_element_type)


def _maps(
    images: Array, kernel: Array, steps: Any, pads: Any, precision: Any, dtype: Any
) -> Array:
    """Computes feature maps in the faster of two ways."""
    if steps == (1, 1) and row_products.is_faster(kernel):
        return row_products.convolve_rows(
            images, kernel, pads, precision=precision, dtype=dtype
        )
    return lax.conv_general_dilated(
        images,
        kernel,
        steps,
        pads,
        dimension_numbers=ORDER,
        precision=precision,
        preferred_element_type=dtype,
    )


_convolve = jax.custom_vjp(_maps, nondiff_argnums=(2, 3, 4, 5))


def _forward(images: Array, kernel: Array, *options: Any) -> tuple[Array, Any]:
    # Not `_convolve`: the Hessian differentiates this function in forward mode, which
    # `custom_vjp` does not support.
    return _maps(images, kernel, *options), (images, kernel)


def _backward(
    steps: Any, pads: Pads, precision: Any, dtype: Any, saved: Any, maps: Array
) -> tuple[Array, Array]:
    """Computes the gradients for images and kernel from those for the feature maps."""
    del dtype
    images, kernel = saved
    maps = maps.astype(images.dtype)
    size = kernel.shape[:2]
    before = [length - 1 - start for length, (start, _) in zip(size, pads, strict=True)]
    spread = _spread(maps, steps)
    after = [
        side + length - 1 - wide - first
        for side, length, wide, first in zip(
            images.shape[1:3], size, spread, before, strict=True
        )
    ]
    # The gradient for the images is a convolution of the dilated maps with the flipped
    # kernel, whose input and output channels are exchanged.
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    edges = list(zip(before, after, strict=True))
    if steps == (1, 1):
        by_images = _maps(maps, flipped, steps, edges, precision, None)
    else:
        by_images = lax.conv_general_dilated(
            maps,
            flipped,
            (1, 1),
            edges,
            lhs_dilation=steps,
            dimension_numbers=ORDER,
            precision=precision,
        )

    def part(images: Array, maps: Array) -> Array:
        # Negative padding crops: with a stride, no window may cover the last pixels.
        edges = [
            (start, length - 1 + wide - side - start, 0)
            for side, length, wide, (start, _) in zip(
                images.shape[1:3], size, spread, pads, strict=True
            )
        ]
        zero = jnp.zeros((), images.dtype)
        padded = lax.pad(images, zero, [(0, 0, 0), *edges, (0, 0, 0)])
        by_kernel = lax.conv_general_dilated(
            # The sum runs over the batch, so it takes the place of the channels.
            padded.transpose(3, 1, 2, 0),
            maps.transpose(1, 2, 0, 3),
            (1, 1),
            "VALID",
            rhs_dilation=steps,
            dimension_numbers=ORDER,
            precision=precision,
            preferred_element_type=jnp.promote_types(kernel.dtype, jnp.float32),
        )
        return by_kernel.transpose(1, 2, 0, 3)

    by_kernel = sum_of_parts(part, images, maps, at_once=AT_ONCE)
    return by_images.astype(images.dtype), by_kernel.astype(kernel.dtype)


_convolve.defvjp(_forward, _backward)


def _spread(maps: Array, steps: Any) -> list[int]:
    """Returns the extent of the feature maps when their pixels are `steps` apart."""
    return [
        (side - 1) * step + 1 for side, step in zip(maps.shape[1:3], steps, strict=True)
    ]


def _views(
    images: Array, size: tuple[int, ...], steps: tuple[int, ...], pads: Pads
) -> list[Float[Array, "b H W i"]]:
    """Returns the pixels of the images under each pixel of the kernel."""
    edges = [(before, after, 0) for before, after in pads]  # negative ones crop
    none = (0, 0, 0)
    padded = lax.pad(images, jnp.zeros((), images.dtype), [none, *edges, none])
    height, width = (
        (side - length) // step + 1
        for side, length, step in zip(padded.shape[1:3], size, steps, strict=True)
    )
    return [
        padded[
            :,
            row : row + (height - 1) * steps[0] + 1 : steps[0],
            column : column + (width - 1) * steps[1] + 1 : steps[1],
        ]
        for row in range(size[0])
        for column in range(size[1])
    ]


def _each_channel(
    views: list[Float[Array, "b H W i"]], rhs: Float[Array, "kh kw 1 o"], dtype: Any
) -> Float[Array, "b H W o"]:
    """Sums shifted images times their kernel pixels, computed in float32 or wider."""
    wide = jnp.promote_types(dtype, jnp.float32)
    pixels = rhs.reshape(len(views), 1, 1, 1, -1).astype(wide)
    multiplier = rhs.shape[-1] // views[0].shape[-1]
    terms = (
        jnp.repeat(view, multiplier, axis=-1).astype(wide) * pixel
        for view, pixel in zip(views, pixels, strict=True)
    )
    return sum(terms, jnp.zeros((), wide)).astype(dtype)
