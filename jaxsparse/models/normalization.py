"""BatchNorm whose sums over a batch are fast on CPUs.

BatchNorm sums feature maps over images and pixels: twice for the statistics, and again
for the gradients. XLA's CPU compiler computes such a sum apart from the operations
around it, one channel after the other with strided memory access. Here images are added
first, element by element and a few at a time, and pixels last.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxsparse.models.batch_parts import sum_of_parts

AT_ONCE = 8  # images that are added at once


class BatchNorm(nn.BatchNorm):
    """linen's BatchNorm of images, computed in another order in training.

    Parameters, running statistics and the options of its constructor are those of
    linen, and values and gradients agree up to rounding. The layer can be
    differentiated in reverse mode, and gradients can be differentiated again, also in
    forward mode.

    This is linen's layer with running averages, with a mask, and with values other than
    the defaults of `axis`, `axis_index_groups`, `use_fast_variance` and
    `force_float32_reductions`, which the networks do not use.
    """

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b *n c"],
        use_running_average: bool | None = None,
        *,
        mask: Array | None = None,
    ) -> Float[Array, "b *n c"]:
        """Normalizes each channel over images and pixels.

        Args:
          x: images or feature maps, [b, ..., c], with b of 1 or more.
          use_running_average: whether to use the running statistics instead of those
            of the batch; None for the attribute of the same name.
          mask: booleans, broadcastable to `x`: the elements that statistics are of;
            None for all.

        Returns:
          Normalized feature maps, in the shape of `x`, and in the attribute `dtype` or
          else the promoted dtype of images and parameters.
        """
        running = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        usual = self.axis == -1 and self.axis_index_groups is None and mask is None
        usual &= self.use_fast_variance and self.force_float32_reductions
        if running or not usual or self.is_initializing():
            return super().__call__(x, use_running_average, mask=mask)
        mean = self.variable("batch_stats", "mean")
        var = self.variable("batch_stats", "var")
        count = math.prod(x.shape[:-1])
        first, second = (total / count for total in moments(x))
        if self.axis_name is not None:
            first, second = lax.pmean(jnp.stack([first, second]), self.axis_name)
        spread = jnp.maximum(0.0, second - first * first)  # rounding can be negative
        for average, value in ((mean, first), (var, spread)):
            average.value = self.momentum * average.value + (1 - self.momentum) * value
        scale, shift = lax.rsqrt(spread + self.epsilon), jnp.zeros_like(first)
        like, shape = [x], first.shape
        if self.use_scale:
            factor = self.param("scale", self.scale_init, shape, self.param_dtype)
            scale, like = scale * factor, [*like, factor]
        if self.use_bias:
            bias = self.param("bias", self.bias_init, shape, self.param_dtype)
            shift, like = jnp.asarray(bias), [*like, bias]
        dtype = self.dtype or jnp.result_type(*like)
        return scale_and_shift(x, first, scale, shift, jnp.dtype(dtype))


def _moments(x: Array) -> tuple[Array, Array]:
    return _channel_sums(lambda x: (x, x * x), x)


@jax.custom_vjp
def moments(
    x: Float[Array, "b *n c"],
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Sums the elements of each channel, and their squares.

    Args:
      x: feature maps, [b, ..., c].

    Returns:
      Both sums, [c], in float32 or wider.
    """
    return _moments(x)


def _moments_forward(x: Array) -> tuple[Any, Array]:
    # Not `moments`: the Hessian differentiates this function in forward mode, which
    # `custom_vjp` does not support.
    return _moments(x), x


def _moments_backward(x: Array, sums: tuple[Array, Array]) -> tuple[Array]:
    of_sum, of_squares = (_broadcastable(s, x) for s in sums)
    return ((of_sum + 2 * of_squares * x).astype(x.dtype),)


moments.defvjp(_moments_forward, _moments_backward)


def _scale_and_shift(
    x: Array, center: Array, scale: Array, shift: Array, dtype: Any
) -> Array:
    center, scale, shift = (_broadcastable(v, x) for v in (center, scale, shift))
    return ((x - center) * scale + shift).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def scale_and_shift(
    x: Float[Array, "b *n c"],
    center: Float[Array, " c"],
    scale: Float[Array, " c"],
    shift: Float[Array, " c"],
    dtype: DTypeLike,
) -> Float[Array, "b *n c"]:
    """Computes (x - center) * scale + shift for each channel.

    Args:
      x: feature maps, [b, ..., c].
      center: what is subtracted, [c], in float32 or wider as the next two.
      scale: factors, [c].
      shift: what is added, [c].
      dtype: dtype of the result, as a `numpy.dtype`.
    """
    return _scale_and_shift(x, center, scale, shift, dtype)


def _scale_forward(x: Array, *rest: Any) -> tuple[Array, Any]:
    return _scale_and_shift(x, *rest), (x, *rest[:2])


def _scale_backward(dtype: Any, saved: Any, maps: Array) -> tuple[Array, ...]:
    del dtype
    x, center, scale = saved
    mean, factor = _broadcastable(center, x), _broadcastable(scale, x)
    of_shift, products = _channel_sums(lambda g, x: (g, g * (x - mean)), maps, x)
    return (maps * factor).astype(x.dtype), -scale * of_shift, products, of_shift


scale_and_shift.defvjp(_scale_forward, _scale_backward)


def _broadcastable(
    values: Float[Array, " c"], maps: Float[Array, "b *n c"]
) -> Float[Array, "... c"]:
    """Adds axes of length 1 to values of the channels of feature maps."""
    return jnp.expand_dims(values, range(maps.ndim - 1))


def _channel_sums(
    terms: Callable[..., tuple[Array, ...]], *maps: Float[Array, "b *n c"]
) -> tuple[Float[Array, " c"], ...]:
    """Sums functions of feature maps over images and pixels, in float32 or wider.

    Args:
      terms: function of some images of all `maps`, [b ... c], to arrays of this shape.
      *maps: feature maps, [b, ..., c].
    """

    def part(*maps: Array) -> tuple[Array, ...]:
        wide = (m.astype(jnp.promote_types(m.dtype, jnp.float32)) for m in maps)
        # Explicit additions: XLA fuses them with `terms`, which it does not do with the
        # sum over an axis.
        return tuple(sum(term[1:], term[0]) for term in terms(*wide))

    sums = sum_of_parts(part, *maps, at_once=AT_ONCE)
    return tuple(jnp.sum(s, tuple(range(s.ndim - 1))) for s in sums)
