"""Arrays on the devices of several processes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxsparse import rng
from jaxsparse.multihost import processes


def to_local(tree: Any) -> Any:
    """Copies arrays that are distributed over processes to each process, whole.

    Args:
      tree: tree of arrays; any of them may be on devices of other processes.

    Returns:
      The tree with arrays on the first device of this process. With a single process,
      the unchanged tree.
    """
    if not processes.is_multiprocess():
        return tree
    return jax.tree.map(jnp.asarray, to_host(tree))


def to_host(tree: Any) -> Any:
    """Copies arrays to the host, whole on every process, and waits for them.

    Args:
      tree: tree of arrays; any of them may be on devices of other processes. Random
        keys are not supported.

    Returns:
      The tree with NumPy arrays.
    """
    leaves, structure = jax.tree.flatten(tree)
    # One call for all arrays: it starts all transfers before it waits for the first.
    near = iter(jax.device_get([leaf for leaf in leaves if not _is_elsewhere(leaf)]))
    fetched = [
        multihost_utils.process_allgather(leaf, tiled=True)
        if _is_elsewhere(leaf)
        else next(near)
        for leaf in leaves
    ]
    return jax.tree.unflatten(structure, fetched)


def _is_elsewhere(leaf: Any) -> bool:
    """Returns whether parts of an array are only on devices of other processes."""
    return isinstance(leaf, jax.Array) and not (
        leaf.is_fully_addressable or leaf.is_fully_replicated
    )


def copy(tree: Any) -> Any:
    """Copies arrays to new buffers with the same shardings.

    Within one process this compiles no program, unlike `jnp.copy`.

    Args:
      tree: tree of arrays, possibly typed random keys.
    """
    if not all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
        return jax.tree.map(jnp.copy, tree)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, tree)
    return jax.device_put(tree, shardings, may_alias=False)


def device_put(tree: Any, shardings: Any) -> Any:
    """Places arrays on devices by shardings that may span processes.

    Unlike `jax.device_put`, this neither compares the values between processes nor
    rejects random keys.

    Args:
      tree: tree of arrays, on the host or on devices, with equal values on all
        processes.
      shardings: one sharding for all arrays, or a tree of shardings with the nesting of
        `tree`.

    Returns:
      The tree with arrays of these shardings.
    """
    leaves = jax.tree.leaves(shardings)
    # Within one process, JAX's own function does all that is needed.
    if all(sharding.is_fully_addressable for sharding in leaves):
        return jax.device_put(tree, shardings)
    if len(leaves) == 1:
        return jax.tree.map(lambda leaf: _device_put(leaf, leaves[0]), tree)
    return jax.tree.map(_device_put, tree, shardings)


def _device_put(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """Places an array of numbers or keys by a sharding that may span processes."""
    if rng.is_key(leaf):
        words = _device_put(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        if leaf.sharding.device_set == sharding.device_set:
            return jax.device_put(leaf, sharding)
        leaf = to_host(leaf)
    array = np.asarray(leaf)
    return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])
