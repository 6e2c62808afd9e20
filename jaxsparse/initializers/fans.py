"""Fans: how many connections a mask leaves each neuron.

Kernels are read as Flax lays them out, [..., i, o]: input and output features are the
last two axes and whatever comes before is space, which is summed. A connection is one
weight, so that a neuron of a 3x3 convolution has up to nine for every input.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxsparse.initializers import kernels

FANS = ("in", "out", "average")


def sparse_fans(
    mask: Bool[Array, "..."],
) -> tuple[Int[Array, "o"], Int[Array, "i"]]:
    """Counts the connections into every output and out of every input.

    Works under `jit` and `vmap`.

    Args:
      mask: which weights of a kernel [..., i, o] exist.

    Returns:
      Fan-in of each output and fan-out of each input, int32, exact.

    Raises:
      ValueError: if the mask has fewer than two axes.

    Examples:
      >>> sparse_fans(jnp.array([[True, False, True], [False, False, True]]))
      (Array([1, 0, 2], dtype=int32), Array([2, 1], dtype=int32))
    """
    if mask.ndim < 2:
        raise ValueError(
            f"mask: got shape {mask.shape}; wanted a kernel's, [..., i, o]; give "
            "biases the mask None"
        )
    space = tuple(range(mask.ndim - 2))
    pairs = jnp.sum(mask, axis=space, dtype=jnp.int32)
    into, out = (jnp.sum(pairs, axis=axis, dtype=jnp.int32) for axis in (0, 1))
    return into, out


def of_weights(mask: Bool[Array, "..."], fan: str) -> Float[Array, "..."]:
    """Says of every weight which fan its neurons have.

    Args:
      mask: which weights of a kernel [..., i, o] exist.
      fan: "in" of the output, "out" of the input, or the "average" of both.

    Returns:
      float32 with as many axes as the mask; those along which all are equal, such as
      space, have size 1.

    Raises:
      ValueError: as `sparse_fans`, or for an unknown fan, listing those known.
    """
    kernels.check_name("fan", fan, FANS)
    into, out = (leaf.astype(jnp.float32) for leaf in sparse_fans(mask))
    into, out = into[None, :], out[:, None]
    chosen = {"in": into, "out": out, "average": (into + out) / 2}[fan]
    return jnp.expand_dims(chosen, tuple(range(mask.ndim - 2)))


def of_shape(shape: tuple[int, ...], fan: str) -> float:
    """Returns the fan of every weight of a dense kernel [..., i, o]; see `of_weights`.

    Raises:
      ValueError: for an unknown fan, listing those known.
    """
    kernels.check_name("fan", fan, FANS)
    space = math.prod(shape[:-2])
    into, out = float(space * shape[-2]), float(space * shape[-1])
    return {"in": into, "out": out, "average": (into + out) / 2}[fan]
