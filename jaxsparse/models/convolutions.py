"""Convolution whose gradients are spelled out: for CPUs.

JAX differentiates a convolution into two more, of other orders of dimensions. XLA's
CPU compiler calls its fast routine for one order only. It puts others into that order,
but not inside loops and branches, where it falls back on a slow one; and the copies
that this takes for the gradient by the kernel repeat whatever made the images, element
by element, against the grain of memory. Here all three are written in the fast order,
and the gradient by the kernel goes through a batch in parts that a cache can hold.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

ORDER = ("NHWC", "HWIO", "NHWC")
AT_ONCE = 16  # images in a part

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

    What comes out is that of linen's own convolution, and so are gradients, which
    differ in the last bits only. They can be differentiated again, forward too; the
    maps only backward. Kernels of one pixel are matrix products. Where every channel is
    convolved by itself, as in MobileNets, images are shifted, multiplied by the
    kernel's pixels and summed. All else, dilations and other groups, is left to JAX.

    Where the compiler divides batches over devices by itself, it has to bring them
    together for the parts; inside `pmap` and `shard_map(check_vma=False)` each device
    has its own.

    Args:
      lhs: images.
      rhs: kernel.
      window_strides: steps along h and w.
      padding: "SAME", "VALID", or pairs of pixels before and after, for h and w.
      lhs_dilation: None, or distances between pixels of the images.
      rhs_dilation: None, or distances between pixels of the kernel.
      dimension_numbers: not looked at; always those of linen, NHWC and HWIO.
      feature_group_count: of channels, each of which sees itself only.
      precision: as in `jax.lax.conv_general_dilated`.
      preferred_element_type: as in `jax.lax.conv_general_dilated`.

    Returns:
      The maps.

    Raises:
      TypeError: if images and kernel do not fit, as JAX words it.
      ValueError: likewise.
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
    like = jax.eval_shape(library, lhs, rhs)  # refuses what does not fit
    dilated = any(rate != 1 for rate in (*(lhs_dilation or ()), *(rhs_dilation or ())))
    each = feature_group_count == lhs.shape[-1]
    if dilated or not (feature_group_count == 1 or each) or 0 in like.shape:
        return library(lhs, rhs)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], size, steps, padding)
    pads = tuple((before, after) for before, after in padding)
    if feature_group_count != 1:
        views = _views(lhs, size, steps, pads)
        return _each_channel(views, rhs, like.dtype)
    if size == (1, 1):
        (view,) = _views(lhs, size, steps, pads)
        return jnp.matmul(
            view,
            rhs[0, 0],
            precision=precision,
            preferred_element_type=preferred_element_type,
        )
    return _convolve(lhs, rhs, steps, pads, precision, preferred_element_type)


def _by_jax(
    images: Array, kernel: Array, steps: Any, pads: Pads, precision: Any, dtype: Any
) -> Array:
    return lax.conv_general_dilated(
        images,
        kernel,
        steps,
        pads,
        dimension_numbers=ORDER,
        precision=precision,
        preferred_element_type=dtype,
    )


_convolve = jax.custom_vjp(_by_jax, nondiff_argnums=(2, 3, 4, 5))


def _forward(images: Array, kernel: Array, *options: Any) -> tuple[Array, Any]:
    # Not `_convolve`: the Hessian differentiates this, and forward.
    return _by_jax(images, kernel, *options), (images, kernel)


def _backward(
    steps: Any, pads: Pads, precision: Any, dtype: Any, saved: Any, maps: Array
) -> tuple[Array, Array]:
    """Computes gradients by images and kernel from those by the maps."""
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
    by_images = lax.conv_general_dilated(
        maps,
        kernel[::-1, ::-1].swapaxes(2, 3),
        (1, 1),
        list(zip(before, after, strict=True)),
        lhs_dilation=steps,
        dimension_numbers=ORDER,
        precision=precision,
    )

    def part(images: Array, maps: Array) -> Array:
        # Negative pixels are cut off: the last ones, which no window of stride 2 saw.
        edges = [
            (start, length - 1 + wide - side - start, 0)
            for side, length, wide, (start, _) in zip(
                images.shape[1:3], size, spread, pads, strict=True
            )
        ]
        zero = jnp.zeros((), images.dtype)
        padded = lax.pad(images, zero, [(0, 0, 0), *edges, (0, 0, 0)])
        by_kernel = lax.conv_general_dilated(
            padded.transpose(3, 1, 2, 0),  # every channel an image, of images
            maps.transpose(1, 2, 0, 3),
            (1, 1),
            "VALID",
            rhs_dilation=steps,
            dimension_numbers=ORDER,
            precision=precision,
            preferred_element_type=jnp.promote_types(kernel.dtype, jnp.float32),
        )
        return by_kernel.transpose(1, 2, 0, 3)

    by_kernel = _sum_of_parts(part, images, maps)
    return by_images.astype(images.dtype), by_kernel.astype(kernel.dtype)


_convolve.defvjp(_forward, _backward)


def _spread(maps: Array, steps: Any) -> list[int]:
    """Computes how many pixels maps reach over when they lie `steps` apart."""
    return [
        (side - 1) * step + 1 for side, step in zip(maps.shape[1:3], steps, strict=True)
    ]


def _sum_of_parts(part: Any, images: Array, maps: Array) -> Array:
    """Sums a function of images and maps over parts of the batch, and the rest."""
    count = len(images) // AT_ONCE
    if len(images) <= AT_ONCE:
        return part(images, maps)
    split = count * AT_ONCE
    parts = [
        array[:split].reshape(count, AT_ONCE, *array.shape[1:])
        for array in (images, maps)
    ]

    def add(total: Array, of: list[Array]) -> tuple[Array, None]:
        return total + part(*of), None

    # From zeros: a first part outside of the loop would be compiled twice, and copied
    # against the grain like a whole batch.
    like = jax.eval_shape(part, *(array[0] for array in parts))
    total, _ = lax.scan(add, jnp.zeros(like.shape, like.dtype), parts)
    return total if split == len(images) else total + part(images[split:], maps[split:])


def _views(
    images: Array, size: tuple[int, ...], steps: tuple[int, ...], pads: Pads
) -> list[Float[Array, "b H W i"]]:
    """Shifts images by every pixel of a kernel, as far as its windows reach."""
    edges = [(before, after, 0) for before, after in pads]  # negative ones cut off
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
    """Sums shifted images, each times its pixel of the kernel, in float32 or wider."""
    wide = jnp.promote_types(dtype, jnp.float32)
    pixels = rhs.reshape(len(views), 1, 1, 1, -1).astype(wide)
    each = rhs.shape[-1] // views[0].shape[-1]
    terms = (
        jnp.repeat(view, each, axis=-1).astype(wide) * pixel
        for view, pixel in zip(views, pixels, strict=True)
    )
    return sum(terms, jnp.zeros((), wide)).astype(dtype)
