"""Exact fractions of integers in traced code."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


def floor_mul_div(
    count: Int[Array, "*#n"],
    numerator: Int[Array, "*#n"],
    denominator: Int[Array, "*#n"],
) -> Int[Array, "*n"]:
    """Returns floor(count * numerator / denominator), exactly, in 32-bit integers.

    The product would overflow 32 bits, and a float would round it. The function
    therefore multiplies bit by bit and divides after each bit (long division).

    Args:
      count: the integer to take a fraction of, at least 0; int32.
      numerator: at least 0 and at most the denominator; int32.
      denominator: at least 1 and less than 2**30; int32.

    Returns:
      int32, with the shape of the three arguments after broadcasting.
    """
    top, bottom = numerator.astype(jnp.uint32), denominator.astype(jnp.uint32)

    def take(index: Int[Array, ""], state: tuple[Array, Array]) -> tuple[Array, Array]:
        quotient, remainder = state
        bit = (count >> (30 - index)) & 1
        # rest < bottom < 2**30 and top <= bottom, so this is less than 3 * 2**30 and
        # fits in uint32.
        remainder = 2 * remainder + bit.astype(jnp.uint32) * top
        return 2 * quotient + remainder // bottom, remainder % bottom

    shape = jnp.broadcast_shapes(count.shape, top.shape, bottom.shape)
    zero = jnp.zeros(shape, jnp.uint32)
    return jax.lax.fori_loop(0, 31, take, (zero, zero))[0].astype(jnp.int32)
