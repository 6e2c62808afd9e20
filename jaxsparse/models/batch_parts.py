"""Sums over the images of a batch, computed in parts that fit into the cache."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


def sum_of_parts(part: Callable[..., Any], *arrays: Array, at_once: int) -> Any:
    """Sums a function of consecutive images over all parts of the batch.

    Args:
      part: function of some images of each array, to arrays or trees of arrays whose
        shapes do not depend on the number of images.
      *arrays: arrays of the batch, [b ...] with b of 1 or more.
      at_once: images in a part, 1 or more; the last part may have fewer.

    Returns:
      The sum, shaped as the result of `part`. Parts are added in the order of the
      batch, in the dtype that `part` returns.
    """
    size = len(arrays[0])
    count, rest = divmod(size, at_once)
    if size <= at_once:
        return part(*arrays)
    split = count * at_once
    parts = [
        array[:split].reshape(count, at_once, *array.shape[1:]) for array in arrays
    ]

    def add(total: Any, of: list[Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, part(*of)), None

    # The sum starts from zeros: computing a first part outside the loop would compile
    # `part` twice, with the strided copies that a whole batch needs.
    template = jax.eval_shape(part, *(array[0] for array in parts))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), template)
    total, _ = lax.scan(add, zeros, parts)
    if not rest:
        return total
    return jax.tree.map(jnp.add, total, part(*(array[split:] for array in arrays)))
