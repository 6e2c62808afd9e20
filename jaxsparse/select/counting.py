"""Counts of the values that reach a threshold, in the narrowest sums that are exact."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

# Rows that are added in int8, at most 127, and the fewest for which that pays. On CPUs
# sums of 32 rows are the fastest: they take a third of the time of float32 sums.
MAX_ROWS, MIN_ROWS = 32, 8


def count(value: Int[Array, "..."], cut: Int[Array, "..."], integer: Any) -> Array:
    """Counts the values of a leaf that reach a threshold.

    Args:
      value: scores as sortable integers.
      cut: the threshold, of the same dtype and without axes.
      integer: dtype of the count, int32 or int64.

    Returns:
      The number of values that are at least the threshold, without axes; exact.
    """
    rows = rows_to_add(value.shape, num_devices(value))
    if rows is None:
        return jnp.sum(count_in_rows(value, cut), dtype=integer)
    *outer, size, last = value.shape
    reached = (value >= cut).reshape(*outer, size // rows, rows, last)
    partial = jnp.sum(reached, axis=-2, dtype=jnp.int8)
    return jnp.sum(partial, dtype=integer)


def count_in_rows(value: Int[Array, "..."], cut: Int[Array, "..."]) -> Array:
    """Counts, along the last axis, the values that reach their threshold.

    Args:
      value: scores as sortable integers.
      cut: thresholds that broadcast against the values.

    Returns:
      The counts, float32 or int32; exact.
    """
    reached = jnp.atleast_1d(value >= cut)
    # float32 represents counts up to 2**24 exactly, and on CPUs its sum takes half the
    # time of an int32 sum.
    dtype = jnp.float32 if reached.shape[-1] <= 2**24 else jnp.int32
    return jnp.sum(reached, axis=-1, dtype=dtype)


def rows_to_add(shape: tuple[int, ...], devices: int) -> int | None:
    """Chooses how many neighbors along the last axis but one are added in int8.

    Args:
      shape: shape of a leaf.
      devices: number of devices that the leaf may be sharded over.

    Returns:
      A divisor of that axis, so that no group of rows lies on two devices and a count
      moves none of them; None if no divisor is large enough.
    """
    if len(shape) < 2 or not math.prod(shape):
        return None
    size = shape[-2]
    divisors = range(min(MAX_ROWS, size), MIN_ROWS - 1, -1)
    return next((n for n in divisors if size % (n * devices) == 0), None)


def num_devices(value: Array) -> int:
    """Returns the number of devices of the mesh that a traced leaf is placed on.

    Args:
      value: the leaf. How it is sharded is not known while it is traced, but only over
        which devices it can be.

    Returns:
      The number of devices; 1 if the leaf is on no mesh.
    """
    return max(1, jax.typeof(value).sharding.mesh.size)
