"""Instability analysis: copies of a network that differ in their SGD noise.

Several copies start from one state of a level's training and train to its end. They
differ in the order of examples and in augmentation only. The error barrier on the
linear interpolation between two of them, or between one of them and the network that
they copy (`instability.pairs`), shows whether the state was stable. `plan` lists the
stages of the copies, and `runner` trains and compares them.

Deviations:
  Copies start with a fresh optimizer state, as does all training from a rewinding
  step. Copies from the middle of training therefore lose its momentum. What the authors
  did there is not known.

References:
  Frankle, Dziugaite, Roy and Carbin, Linear Mode Connectivity and the Lottery Ticket
  Hypothesis, 2020, arXiv:1912.05671, section 2 and algorithm 1.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from jaxsparse import arguments


@arguments.check(count=arguments.integer(0))
def data_keys(keys: Key[Array, "r"], count: int) -> Key[Array, "n"]:
    """Derives a random key for each copy, different from the key of its parent.

    Args:
      keys: typed random keys of the example order and augmentation, one per replicate
        [r].
      count: number of copies per replicate.

    Returns:
      Typed random keys [r * count], the copies of a replicate next to each other.
      Increasing `count` does not change the keys of the first copies.
    """
    return _data_keys(keys, count)


@functools.partial(jax.jit, static_argnums=1)
def _data_keys(keys: Key[Array, "r"], count: int) -> Key[Array, "n"]:
    """Derives the keys of `data_keys`."""
    numbers = jnp.arange(1, count + 1, dtype=jnp.uint32)

    def of(key: Key[Array, ""]) -> Key[Array, "c"]:
        # An arbitrary constant that keeps these keys apart from the others that are
        # derived from the data key, for example by folding in the level.
        named = jax.random.fold_in(key, 0x0C417D)
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(named, numbers)

    return jax.vmap(of)(keys).reshape(-1)


@arguments.check(count=arguments.integer(0))
def copies(tree: Any, count: int) -> Any:
    """Repeats every replicate [r ...] for its copies [r * count ...].

    Args:
      tree: arrays with a leading replicate axis, possibly typed random keys.
      count: number of copies per replicate.
    """
    return _copies(tree, count)


@functools.partial(jax.jit, static_argnums=1)
def _copies(tree: Any, count: int) -> Any:
    """Repeats all leaves by one program."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), tree)


@arguments.check(count=arguments.integer(1), child=arguments.integer(0))
def of_child(tree: Any, count: int, child: int) -> Any:
    """Selects the same child of every replicate [r ...] from [r * count ...].

    Args:
      tree: arrays of all children, those of a replicate next to each other.
      count: number of children per replicate.
      child: number of the child, from 0 to `count` - 1.
    """
    return _of_child(tree, count, np.int32(child))


@functools.partial(jax.jit, static_argnums=1)
def _of_child(tree: Any, count: int, child: Int[Array, ""]) -> Any:
    """Selects a child by a traced number, so that all share one program."""
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(
            leaf.reshape(-1, count, *leaf.shape[1:]), child, axis=1, keepdims=False
        ),
        tree,
    )


@arguments.check(count=arguments.integer(0))
def pairs(count: int) -> list[tuple[int, int]]:
    """Lists all pairs of copies of one parent.

    Args:
      count: number of copies.

    Examples:
      >>> pairs(3)
      [(0, 1), (0, 2), (1, 2)]
    """
    return [(a, b) for a in range(count) for b in range(a + 1, count)]
