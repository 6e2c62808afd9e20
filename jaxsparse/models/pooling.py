"""Maximum pooling: as linen has it, and as a choice between neighbours.

The gradient of XLA's max pooling is slow on CPUs; both give the same numbers.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float


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
