"""Packs masks to one bit per weight, for files."""

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Array

from jaxsparse import tree
from jaxsparse.masks.mapping import check_boolean
from jaxsparse.tree import names
from jaxsparse.types import Masks

_SHAPE = ":shape"  # suffix of the entry with the shape of a packed leaf


def pack(masks: Masks) -> dict[str, np.ndarray]:
    """Packs masks to one bit per weight, for the file of a ticket.

    Args:
      masks: concrete masks.

    Returns:
      Two entries for each prunable leaf. Under its name, the ceil(size / 8) bytes
      (uint8) of its mask, with weights in row-major order and the first in the highest
      bit. Under its name followed by ":shape", its shape (int64).

    Raises:
      ValueError: if a mask is not boolean.
    """
    check_boolean(masks, remedy="make masks with `masks.ones`")
    packed = {}
    for name, leaf in tree.named_leaves(masks).items():
        packed[name] = np.packbits(np.asarray(leaf).reshape(-1))
        packed[name + _SHAPE] = np.array(leaf.shape, np.int64)
    return packed


def unpack(packed: Mapping[str, np.ndarray], template: Masks) -> Masks:
    """Unpacks masks that `pack` has packed.

    Args:
      packed: return value of `pack`. The shapes may be missing, as in files of earlier
        versions; only the number of bytes is then checked.
      template: masks with the nesting and shapes of the result, such as
        `ones(params)`.

    Returns:
      Masks equal to those packed.

    Raises:
      ValueError: if the names differ, listing those missing and those unexpected; or if
        a leaf has another shape, is not bytes on one axis, or has a number of bytes
        that does not fit its shape, naming the leaf.
      TypeError: if `packed` is not a mapping.
    """
    if not isinstance(packed, Mapping):
        raise TypeError(
            f"packed: expected a mapping from leaf names to bytes, got {packed!r}"
        )
    packed = {name: np.asarray(packed[name]) for name in packed}
    leaves, treedef = jax.tree.flatten(template)
    leaf_names = names(template)
    present = {name for name in packed if not _is_shape(name, packed)}
    missing = sorted(set(leaf_names) - present)
    unexpected = sorted(present - set(leaf_names))
    if missing or unexpected:
        raise ValueError(
            "packed masks: expected exactly the prunable leaves of the network they "
            f"are loaded for, got {sorted(present)}: missing {missing}, unexpected "
            f"{unexpected}; load them for the network they were made for"
        )
    unpacked = []
    for name, leaf in zip(leaf_names, leaves, strict=True):
        _check_packed(name, packed, leaf)
        # `count` drops the bits that fill up the last byte.
        bits = np.unpackbits(packed[name], count=leaf.size)
        unpacked.append(jax.device_put(bits.astype(bool).reshape(leaf.shape)))
    return jax.tree.unflatten(treedef, unpacked)


def _is_shape(name: str, packed: Mapping[str, np.ndarray]) -> bool:
    """Returns whether an entry of packed masks is the shape of another entry."""
    return name.endswith(_SHAPE) and name.removesuffix(_SHAPE) in packed


def _check_packed(name: str, packed: Mapping[str, np.ndarray], leaf: Array) -> None:
    """Checks that the bits of a leaf fit its shape.

    Args:
      name: name of the leaf.
      packed: bytes and shapes by name.
      leaf: the mask that the bits are unpacked for.

    Raises:
      ValueError: if the shape, the dtype or the number of bytes differs.
    """
    bits, shape = packed[name], packed.get(name + _SHAPE)
    if shape is not None and tuple(shape.tolist()) != leaf.shape:
        raise ValueError(
            f"packed masks: {name}: expected shape {leaf.shape}, got "
            f"{tuple(shape.tolist())}; load them for the network they were made for"
        )
    if bits.dtype != np.uint8 or bits.ndim != 1:
        raise ValueError(
            f"packed masks: {name}: expected bytes (uint8) on one axis, as "
            f"`masks.pack` returns, got {bits.dtype} of shape {bits.shape}"
        )
    if bits.size != -(-leaf.size // 8):
        raise ValueError(
            f"packed masks: {name}: expected {-(-leaf.size // 8)} bytes for shape "
            f"{leaf.shape}, got {bits.size}; load them for the network they were made "
            "for"
        )
