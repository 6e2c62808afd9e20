"""2x2 max pooling: that of linen, and one that is fast on CPUs.

The gradient of XLA's max pooling is slow on CPUs. Both functions return the same values
and gradients.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


def pool(x: Float[Array, "b h w c"]) -> Float[Array, "b H W c"]:
    """Computes 2x2 max pooling by comparing neighbors; drops an odd last row or column.

    If a maximum occurs several times, the first occurrence in row-major order receives
    the whole gradient, as in `nn.max_pool`. `jnp.max` would divide the gradient among
    the occurrences. Ties are common on constant backgrounds, and this would change the
    gradients of inactive weights.

    Args:
      x: feature maps, [b, h, w, c].

    Returns:
      The maxima, [b, h // 2, w // 2, c].
    """
    b, h, w, c = x.shape
    even = x[:, : h - h % 2, : w - w % 2].reshape(b, h // 2, 2, w // 2, 2, c)
    rows = _larger(even[:, :, :, :, 0], even[:, :, :, :, 1])
    return _larger(rows[:, :, 0], rows[:, :, 1])


def _larger(first: Float[Array, "*n"], second: Float[Array, "*n"]) -> Array:
    """Returns the larger element, the first of equal ones, and NaN if either is NaN."""
    return jnp.where((second > first) | jnp.isnan(second), second, first)


def pool_windows(x: Float[Array, "b h w c"]) -> Float[Array, "b H W c"]:
    """Computes 2x2 max pooling with `nn.max_pool`; the default of the networks.

    Args:
      x: feature maps, [b, h, w, c].

    Returns:
      The maxima, [b, h // 2, w // 2, c].
    """
    return nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
