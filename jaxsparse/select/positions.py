"""The order in which equal scores are kept: pseudo-random, and the same everywhere.

Weights are numbered in row-major order, and a fixed bijection of these numbers says
which of two equal weights comes first. It favors no layer, row or column, needs no
random key, and depends neither on values nor on how arrays lie on devices. All is
computed from iotas: a cumulative sum would gather sharded leaves.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, UInt32

from jaxsparse.select import inputs
from jaxsparse.select.inputs import AxisName, Layer

# Orders begin with -1, so that the largest integer is beyond every one of them.
FIRST, NONE = -1, -2
BITS = 31
# Steps that can each be undone: shifts, and odd factors, which are the first binary
# digits of the square roots of 3 and 5 after the point. Fewer rounds leave patterns.
ROUNDS = ((16, 0xBB67AE85), (14, 0x3C6EF373))


def of_layers(
    layers: list[Layer], integer: Any, *, pooled: bool, axis_name: AxisName
) -> list[Int[Array, "..."]]:
    """Orders the weights of each layer, or of all together if they are pooled.

    Args:
      layers: what is selected from.
      integer: int32, or int64 for 2**31 weights or more that compete.
      pooled: whether numbers run on from one layer to the next.
      axis_name: as in `select.globally`.

    Returns:
      For each layer the place of each of its weights: integers from -1, all different
      among weights that compete. The order of the first 2**31 is the same for int32
      and int64.
    """
    device = 0 if axis_name is None else lax.axis_index(axis_name).astype(integer)
    result, start = [], 0
    for layer in layers:
        first = start + device * layer.score.size
        result.append(of_shape(layer.score.shape, integer, first=first))
        start += inputs.size([layer], axis_name) if pooled else 0
    return result


def of_shape(
    shape: tuple[int, ...], integer: Any, *, first: Int[Array, ""] | int = 0
) -> Int[Array, "..."]:
    """Orders the weights of one leaf, whose numbers begin with `first`.

    Where numbers exceed 2**31 with int32, any 2**31 in a row have different places.
    """
    word = jnp.uint32 if integer == jnp.int32 else jnp.uint64
    number = jnp.full(shape, first, word)
    for axis in range(len(shape)):
        stride = np.array(math.prod(shape[axis + 1 :]), word)
        number += lax.broadcasted_iota(word, shape, axis) * stride
    low = scatter((number & np.array(2**BITS - 1, word)).astype(jnp.uint32))
    if integer == jnp.int32:
        return low.astype(integer) - 1
    high = (number >> np.array(BITS, word)).astype(integer)
    return (low.astype(integer) << (63 - BITS)) + high - 1


def scatter(number: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """Maps the integers below 2**31 one to one, neighbors far apart."""
    mask = np.uint32(2**BITS - 1)
    for shift, factor in ROUNDS:
        number = number ^ (number >> np.uint32(shift))
        number = (number * np.uint32(factor)) & mask
    return number ^ (number >> np.uint32(15))
