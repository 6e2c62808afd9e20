"""Random keys: by name, and typed or raw.

A leaf's key follows from the leaf's name and nothing else, so that adding, removing
or renaming one layer does not change what is drawn for the others.
"""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key


def leaf_key(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """Folds a leaf's name into a key.

    The hash is CRC-32 of the name in UTF-8: the same in every process and version of
    Python, as `hash` is not.

    Args:
      key: a typed key (`jax.random.key`), shared by all leaves.
      name: the leaf's name, as `masks.names` lists it.

    Returns:
      The key of that leaf.
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def as_typed(key: Any, *, field: str = "key") -> Key[Array, "..."]:
    """Returns a typed key, of a typed key or of raw key data.

    Args:
      key: a typed key (`jax.random.key`) or raw key data, uint32 (`jax.random.PRNGKey`,
        `jax.random.key_data`) of JAX's default kind of keys; or an array of either.
      field: what to call the key in the message.

    Raises:
      TypeError: if it is neither.

    Examples:
      >>> as_typed(jax.random.PRNGKey(0)) == jax.random.key(0)
      Array(True, dtype=bool)
    """
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        return key
    if dtype == jnp.uint32 and key.ndim:
        return jax.random.wrap_key_data(key)
    raise TypeError(
        f"{field}: expected a random key, from jax.random.key or raw key data of "
        f"uint32, got {key!r}"
    )
