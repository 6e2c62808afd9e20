"""Separates and joins the replicates of trees [r ...], with few compiled programs.

Operations on single arrays would compile a program for each shape.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def split(tree: Any) -> list[Any]:
    """Separates replicates on the host, which compiles nothing.

    Args:
      tree: concrete arrays [r ...] of numbers or booleans, at least one.

    Returns:
      The tree of each replicate, on the default device.

    Examples:
      >>> split({"kernel": jnp.arange(4).reshape(2, 2)})
      [{'kernel': Array([0, 1], dtype=int32)}, {'kernel': Array([2, 3], dtype=int32)}]
    """
    fetched = jax.device_get(tree)
    return [
        jax.tree.map(lambda leaf, r=r: jax.device_put(leaf[r]), fetched)
        for r in range(len(jax.tree.leaves(fetched)[0]))
    ]


def take(tree: Any, replicate: int) -> Any:
    """Selects a replicate, with one program for all.

    Args:
      tree: arrays [r ...], possibly typed random keys.
      replicate: number of the replicate, from 0.

    Examples:
      >>> take({"kernel": jnp.arange(4).reshape(2, 2)}, 1)
      {'kernel': Array([2, 3], dtype=int32)}
    """
    return _take(tree, np.int32(replicate))


@jax.jit
def _take(tree: Any, replicate: Any) -> Any:
    # Not `leaf[0]`: JAX's key-reuse checker counts a static slice of a random key as a
    # use of the key.
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, replicate, keepdims=False), tree
    )


def stack(trees: Sequence[Any]) -> Any:
    """Joins the trees of replicates, with one program.

    Args:
      trees: trees of arrays, at least one, of equal structure and shapes.

    Examples:
      >>> stack([{"kernel": jnp.zeros(3)}, {"kernel": jnp.ones(3)}])["kernel"].shape
      (2, 3)
    """
    return _stack(tuple(trees))


@jax.jit
def _stack(trees: tuple[Any, ...]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
