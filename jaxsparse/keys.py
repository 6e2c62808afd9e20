"""Random keys by name.

A leaf's key follows from the leaf's name and nothing else, so that adding, removing
or renaming one layer does not change what is drawn for the others.
"""

import zlib

import jax
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
