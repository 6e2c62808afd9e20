"""The fixed pseudo-random order in which equal scores are kept.

Weights are numbered in row-major order, and a fixed bijection of these numbers gives
their order: of two equal scores, the one with the lower place is kept first. The order
favors no layer, row or column and needs no random key. It depends neither on values nor
on the sharding of arrays. All numbers are computed from iotas, because a cumulative sum
would gather sharded leaves.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int, UInt32

from jaxsparse.select import inputs
from jaxsparse.select.inputs import AxisName, Layer

# Places start at -1, so the largest integer of the dtype is above every place. NONE is
# the place of a weight that does not take part in a tie.
FIRST, NONE = -1, -2
BITS = 31
# Shifts and odd factors of an integer hash. A xor with a right shift and a product with
# an odd factor modulo a power of two are both invertible, so the hash is a bijection.
# The factors are the first 32 binary digits of the square roots of 3 and 5 after the
# point, with the last digit set to 1. Fewer rounds leave visible patterns.
ROUNDS = ((16, 0xBB67AE85), (14, 0x3C6EF373))


def of_layers(
    layers: list[Layer], integer: Any, *, pooled: bool, axis_name: AxisName
) -> list[Int[Array, "..."]]:
    """Computes the place of each weight in the order in which equal scores are kept.

    Args:
      layers: leaves that are selected from.
      integer: dtype of the places: int32, or int64 if 2**31 weights or more compete.
      pooled: whether all layers compete. The numbering then continues from one layer to
        the next; otherwise it starts anew in each layer.
      axis_name: inside `shard_map`, the mesh axis or axes along which every leaf is
        split by its first dimension; None outside `shard_map`.

    Returns:
      For each layer the places of its weights, integers from -1 on, all different among
      weights that compete. int32 and int64 order the first 2**31 weights alike.
    """
    # A leaf is split by its first dimension, so a device's part is a contiguous range
    # of row-major numbers, and the order does not depend on the number of devices.
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
    """Computes the places of the weights of one leaf.

    In int32 only the lowest 31 bits of a number count, so places repeat after 2**31
    weights. Any 2**31 consecutive weights still have different places.

    Args:
      shape: shape of the leaf.
      integer: dtype of the places, int32 or int64.
      first: number of the leaf's first weight.

    Returns:
      Places from -1 on, in the given shape.
    """
    word = jnp.uint32 if integer == jnp.int32 else jnp.uint64
    number = jnp.full(shape, first, word)
    for axis in range(len(shape)):
        stride = np.array(math.prod(shape[axis + 1 :]), word)
        number += lax.broadcasted_iota(word, shape, axis) * stride
    low = scatter((number & np.array(2**BITS - 1, word)).astype(jnp.uint32))
    if integer == jnp.int32:
        return low.astype(integer) - 1
    # The hash stays in the high bits, so that the first 2**31 weights, whose `high` is
    # 0, are ordered as in int32.
    high = (number >> np.array(BITS, word)).astype(integer)
    return (low.astype(integer) << (63 - BITS)) + high - 1


def scatter(number: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """Maps the integers below 2**31 one to one to themselves, with neighbors far apart.

    Args:
      number: uint32 below 2**31.

    Returns:
      uint32 below 2**31.
    """
    mask = np.uint32(2**BITS - 1)
    for shift, factor in ROUNDS:
        number = number ^ (number >> np.uint32(shift))
        number = (number * np.uint32(factor)) & mask
    return number ^ (number >> np.uint32(15))
