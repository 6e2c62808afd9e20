"""Random keys: one key per leaf, by its name, and conversion to typed keys.

The key of a leaf depends only on the shared key and the leaf's name, so that adding,
removing or renaming one layer does not change the random numbers of the others.
"""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

_make_key = jax.jit(jax.random.key)


def make_key(seed: int) -> Key[Array, ""]:
    """Makes a typed key as `jax.random.key` does, by one program instead of two.

    Args:
      seed: any integer; its last 32 bits are used unless JAX uses 64.
    """
    return _make_key(np.int64(seed))


def hash_of(name: str) -> int:
    """Returns the CRC-32 of a name in UTF-8, which `jax.random.fold_in` accepts.

    Unlike `hash`, it is the same in every process and in every version of Python.

    Args:
      name: any text.
    """
    return zlib.crc32(name.encode())


def leaf_key(key: Key[Array, ""], name: str) -> Key[Array, ""]:
    """Folds a leaf's name into a key.

    Args:
      key: a typed key (`jax.random.key`), shared by all leaves.
      name: the leaf's name, its path joined by slashes, as listed by `masks.names`.

    Returns:
      The key of that leaf, typed.
    """
    return jax.random.fold_in(key, hash_of(name))


def is_key(leaf: Any) -> bool:
    """Returns whether a leaf is an array of typed random keys.

    Args:
      leaf: an array, its shape and dtype, or anything else.
    """
    return jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key)


def as_typed(key: Any, *, field: str = "key") -> Key[Array, "..."]:
    """Converts raw key data to a typed key; returns typed keys unchanged.

    Args:
      key: a typed key (`jax.random.key`), or raw uint32 key data (`jax.random.PRNGKey`,
        `jax.random.key_data`) of JAX's default key implementation; or an array of
        either.
      field: name of the argument in the error message.

    Returns:
      The typed key, or array of typed keys.

    Raises:
      TypeError: if the argument is neither.

    Examples:
      >>> as_typed(jax.random.PRNGKey(0)) == jax.random.key(0)
      Array(True, dtype=bool)
    """
    if is_key(key):
        return key
    # Raw key data have an axis of words. A uint32 without axes is a plain number.
    if getattr(key, "dtype", None) == jnp.uint32 and key.ndim:
        return jax.random.wrap_key_data(key)
    raise TypeError(
        f"{field}: expected a random key, from jax.random.key or raw key data of "
        f"uint32, got {key!r}"
    )
