"""Packed states: of sparse arrays only the nonzero entries, and one bit for each entry.

The file of a packed checkpoint, `packed.npz`, has for each leaf NAME of the state, as
`tree.named_leaves` names it, one of

    NAME                          the array as it is
    NAME:bits, NAME:shape         a boolean array, one bit for each entry
    NAME:bits, NAME:shape, NAME:values, NAME:dtype
                                  bits of the entries that are not zero, their values as
                                  bytes, and the dtype

whichever takes least space. Entries count as zero if all their bits are, so that a
state is restored bit for bit; -0.0 and NaN are stored. Pruned weights are zeros, and so
is the momentum of pruned weights.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxsparse import metrics_log, multihost, npz_files, rng, tree

FILE = "packed.npz"
_BITS, _SHAPE, _VALUES, _DTYPE = ":bits", ":shape", ":values", ":dtype"


def pack(state: Any) -> dict[str, np.ndarray]:
    """Packs a tree of arrays. Collective: every process must call it.

    Args:
      state: a tree of arrays; typed random keys are packed as key data.

    Raises:
      ValueError: if the name of a leaf is that of another with one of the endings.
    """
    packed: dict[str, np.ndarray] = {}
    leaves = tree.named_leaves(state)
    for name in leaves:
        whole, colon, ending = name.rpartition(":")
        if whole in leaves and colon + ending in (_BITS, _SHAPE, _VALUES, _DTYPE):
            raise ValueError(
                f"state: expected no leaf named like a part of another in a packed "
                f"checkpoint, got {name!r} beside {whole!r}; rename the leaf"
            )
    for name, leaf in leaves.items():
        data = jax.random.key_data(leaf) if rng.is_key(leaf) else leaf
        packed |= _pack_leaf(name, np.asarray(multihost.to_host(data)))
    return packed


def _pack_leaf(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Packs a leaf in the way that takes least space."""
    shape = {name + _SHAPE: np.array(array.shape, np.int64)}
    if array.dtype == bool:
        return {name + _BITS: np.packbits(array.reshape(-1)), **shape}
    flat = np.ascontiguousarray(array).reshape(-1)
    entries = flat.view(np.uint8).reshape(flat.size, -1) if flat.size else None
    if entries is None:
        return {name: _plain(array)} | _dtype(name, array)
    is_there = entries.any(axis=1)
    bits, values = np.packbits(is_there), entries[is_there]
    if bits.nbytes + values.nbytes >= array.nbytes:
        return {name: _plain(array)} | _dtype(name, array)
    return {name + _BITS: bits, **shape, name + _VALUES: values} | _dtype(name, array)


def _plain(array: np.ndarray) -> np.ndarray:
    """Returns an array of a dtype that the file format has."""
    if array.dtype.kind in "biufc":
        return array
    return array.view(f"u{array.dtype.itemsize}")


def _dtype(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    return {name + _DTYPE: np.array(array.dtype.name)}


def _unpack_leaf(name: str, packed: dict[str, np.ndarray]) -> np.ndarray:
    """Unpacks a leaf that `_pack_leaf` has packed."""
    dtype = np.dtype(str(packed[name + _DTYPE])) if name + _DTYPE in packed else bool
    if name in packed:
        return packed[name].view(dtype)
    shape = tuple(packed[name + _SHAPE].tolist())
    size = int(np.prod(shape))
    is_there = np.unpackbits(packed[name + _BITS], count=size).astype(bool)
    if dtype is bool:
        return is_there.reshape(shape)
    entries = np.zeros((size, np.dtype(dtype).itemsize), np.uint8)
    entries[is_there] = packed[name + _VALUES]
    return entries.reshape(-1).view(dtype).reshape(shape)


def save(folder: Path, state: Any) -> None:
    """Writes a packed state to a directory. Collective: every process must call it.

    Args:
      folder: directory of the checkpoint; it must not exist.
      state: the state.

    Raises:
      OSError: if it cannot be written.
      ValueError: if `pack` refuses the names of the leaves.
    """
    packed = pack(state)

    def write() -> None:
        metrics_log.write_atomically(folder / FILE, npz_files.content(packed))

    multihost.on_primary(write)


def is_packed(folder: Path) -> bool:
    """Returns whether a checkpoint is packed, the same on every process.

    Args:
      folder: directory of the checkpoint.
    """
    return multihost.broadcast_from_primary((folder / FILE).exists)


def load(folder: Path, like: Any) -> Any:
    """Reads a packed state.

    Args:
      folder: directory of the checkpoint.
      like: a tree with the leaves of the state; each loaded array is placed like its
        leaf.

    Returns:
      The state, with the nesting of `like`.

    Raises:
      OSError: if the machine cannot read it.
      KeyError: if a leaf is missing.
      ValueError: if the file is damaged.
    """

    def read() -> dict[str, np.ndarray]:
        with np.load(folder / FILE) as packed:
            return dict(packed)

    packed = multihost.broadcast_from_primary(read)

    def restore(name: str, leaf: Any) -> Any:
        array = _unpack_leaf(name, packed)
        if rng.is_key(leaf):
            impl = jax.random.key_impl(leaf)
            return jax.random.wrap_key_data(jax.device_put(array), impl=impl)
        sharding = getattr(leaf, "sharding", None)
        if sharding is None:
            return jax.device_put(array)
        return jax.make_array_from_callback(
            array.shape, sharding, lambda index: array[index]
        )

    return tree.map_with_names(restore, like)
