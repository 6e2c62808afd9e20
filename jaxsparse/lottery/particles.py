"""Particles: replicates that share initial weights and masks and are averaged.

The particles of a group visit the training examples in different orders. Every level
prunes the mean of their final weights, so that they keep one mask.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp


@functools.partial(jax.jit, static_argnames="particles")
def average(tree: Any, *, particles: int) -> Any:
    """Replaces the values of each particle by the mean of its group.

    Args:
      tree: arrays [r ...] of numbers, such as final weights; replicates of a group are
        consecutive.
      particles: number of replicates in a group; divides r. 1 changes nothing.

    Returns:
      Arrays [r ...] with the dtypes of `tree`; means are computed in float32 or wider.

    Examples:
      >>> average({"w": jnp.array([1.0, 3.0, 5.0, 9.0])}, particles=2)
      {'w': Array([2., 2., 7., 7.], dtype=float32)}

    References:
      Choi, Lee, Nam, Lee. Sparse Weight Averaging with Multiple Particles for Iterative
      Magnitude Pruning. 2023. arXiv:2305.14852, algorithm 1.
      Zimmer, Spiegel, Pokutta. Sparse Model Soups: A Recipe for Improved Pruning via
      Model Averaging. 2023. arXiv:2306.16788 (where levels start from the mean).
    """
    if particles == 1:
        return tree

    def mean(leaf: Any) -> Any:
        groups = leaf.reshape(-1, particles, *leaf.shape[1:])
        wide = jnp.promote_types(leaf.dtype, jnp.float32)
        means = jnp.mean(groups, axis=1, keepdims=True, dtype=wide).astype(leaf.dtype)
        return jnp.broadcast_to(means, groups.shape).reshape(leaf.shape)

    return jax.tree.map(mean, tree)
