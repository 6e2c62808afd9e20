"""Fans: numbers of connections that a mask leaves to each neuron.

Kernels have the layout [..., i, o] of Flax: input and output features are the last two
axes. All axes before them are positions of the kernel window, which are summed. Each
weight is one connection, so a neuron of a 3x3 convolution has up to nine connections to
every input feature.
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

    Can be used under `jit` and `vmap`.

    Args:
      mask: mask of a kernel, boolean [..., i, o]; True for active weights.

    Returns:
      Fan-in of each output [o] and fan-out of each input [i], exact, int32.

    Raises:
      ValueError: if the mask has fewer than two axes.

    Examples:
      >>> sparse_fans(jnp.array([[True, False, True], [False, False, True]]))
      (Array([1, 0, 2], dtype=int32), Array([2, 1], dtype=int32))
    """
    if mask.ndim < 2:
        raise ValueError(
            f"mask: expected that of a kernel, [..., i, o], got shape {mask.shape}; "
            "use the mask None for biases"
        )
    space = tuple(range(mask.ndim - 2))
    pairs = jnp.sum(mask, axis=space, dtype=jnp.int32)
    into, out = (jnp.sum(pairs, axis=axis, dtype=jnp.int32) for axis in (0, 1))
    return into, out


def of_weights(mask: Bool[Array, "..."], fan: str) -> Float[Array, "..."]:
    """Computes the fan of each weight, counted in the mask.

    Args:
      mask: mask of a kernel, boolean [..., i, o]; True for active weights.
      fan: "in" for the fan-in of the weight's output, "out" for the fan-out of its
        input, or "average" for the mean of both.

    Returns:
      Fans, float32, with as many axes as the mask; axes along which all are equal, such
      as positions, have size 1.

    Raises:
      ValueError: if the mask has fewer than two axes or the fan is unknown; the message
        then lists the known names.
    """
    kernels.check_name("fan", fan, FANS)
    into, out = (leaf.astype(jnp.float32) for leaf in sparse_fans(mask))
    into, out = into[None, :], out[:, None]
    chosen = {"in": into, "out": out, "average": (into + out) / 2}[fan]
    return jnp.expand_dims(chosen, tuple(range(mask.ndim - 2)))


def of_shape(shape: tuple[int, ...], fan: str) -> float:
    """Computes the fan of every weight in a dense kernel.

    Args:
      shape: shape of the kernel, [..., i, o].
      fan: "in" for the fan-in, "out" for the fan-out, or "average" for the mean of
        both. All positions of the kernel window count.

    Raises:
      ValueError: if the fan is unknown; the message lists the known names.
    """
    kernels.check_name("fan", fan, FANS)
    space = math.prod(shape[:-2])
    into, out = float(space * shape[-2]), float(space * shape[-1])
    return {"in": into, "out": out, "average": (into + out) / 2}[fan]
