"""What the state of `sparsify` stores about each weight: a code of two bits.

    code    weight
    0       inactive, and was never active
    1       active since before the masks last changed
    2       inactive, and was active earlier
    3       active since the masks last changed; its optimizer state starts there

One code replaces three masks: that of the active weights, that of the weights whose
optimizer state is to be kept, and that of the weights that were ever active. Codes
change with the masks only, so that all other steps just read them.

Codes are uint8 arrays with the shapes of the weights, one byte each. `pack` stores four
of them in a byte, see `PackedCodes`.
"""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, UInt8

from jaxsparse.types import Masks

KEPT, LEFT, NEW = 1, 2, 3  # 0: inactive, and was never active
PER_BYTE = 4
BITS = 2


@flax.struct.dataclass
class PackedCodes:
    """The codes of one leaf, four in a byte.

    Attributes:
      packed: uint8 array. Along `axis` it has a quarter of the length of the weights,
        rounded up. Byte i has the codes of the positions 4 i to 4 i + 3, the first in
        the lowest bits; those past the end are 0. Further leading axes, such as that of
        replicates, may be added.
      axis: the packed axis, counted backwards from -1.
      length: length of the weights along it.
    """

    packed: Any  # also abstract, or what else trees like the state hold
    axis: int = flax.struct.field(pytree_node=False)
    length: int = flax.struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weights, after any further leading axes."""
        shape = list(self.packed.shape)
        shape[self.axis] = self.length
        return tuple(shape)


def is_packed(node: Any) -> bool:
    """Returns whether a node of a state is a leaf with packed codes.

    Args:
      node: any node.
    """
    return isinstance(node, PackedCodes)


def pack(codes: UInt8[Array, "..."]) -> PackedCodes | UInt8[Array, ""]:
    """Packs the codes of one leaf along the axis that wastes the fewest bits.

    Args:
      codes: codes. A code without axes is returned as it is, since it fills a byte
        anyway.
    """
    if not codes.ndim:
        return codes
    lengths = codes.shape
    # Whole bytes along the axis, relative to its length. The last of equal axes, since
    # weights are sharded along the last axis at need only.
    at = min(
        reversed(range(codes.ndim)),
        key=lambda n: -(-lengths[n] // PER_BYTE) / max(lengths[n], 1),
    )
    return pack_like(codes, PackedCodes(None, at - codes.ndim, lengths[at]))


def pack_like(codes: UInt8[Array, "..."], template: PackedCodes) -> PackedCodes:
    """Packs the codes of one leaf along the axis of a template.

    Args:
      codes: codes; they may have leading axes beside those of the template.
      template: gives the axis; its codes are not used.
    """
    axis = codes.ndim + template.axis
    pad = [(0, 0)] * codes.ndim
    pad[axis] = (0, -template.length % PER_BYTE)
    shape = (*codes.shape[:axis], -1, PER_BYTE, *codes.shape[axis + 1 :])
    groups = jnp.reshape(jnp.pad(codes, pad), shape)
    # Bits of different codes do not overlap, so the sum is exact.
    packed = jnp.sum(groups << _shifts(groups.ndim, axis + 1), axis + 1, jnp.uint8)
    return template.replace(packed=packed)


def unpack(leaf: Any) -> UInt8[Array | np.ndarray, "..."]:
    """Returns the codes of one leaf, packed or not, with the shape of its weights.

    Args:
      leaf: an array of codes or a `PackedCodes`.
    """
    if not is_packed(leaf):
        return leaf
    axis = leaf.packed.ndim + leaf.axis
    groups = jnp.expand_dims(leaf.packed, axis + 1)
    codes = (groups >> _shifts(groups.ndim, axis + 1)) & (2**BITS - 1)
    shape = (*codes.shape[:axis], -1, *codes.shape[axis + 2 :])
    return jax.lax.slice_in_dim(jnp.reshape(codes, shape), 0, leaf.length, axis=axis)


def _shifts(ndim: int, axis: int) -> UInt8[Array, "..."]:
    """Returns the place of each code in its byte, along one of `ndim` axes."""
    shape = [1] * ndim
    shape[axis] = PER_BYTE
    return jnp.reshape(jnp.arange(0, 8, BITS, dtype=jnp.uint8), shape)


def first(masks: Any) -> Any:
    """Returns the codes of a state without steps.

    Args:
      masks: boolean masks, or packed ones from `pack_masks`.
    """
    return jax.tree.map(
        lambda leaf: leaf if is_packed(leaf) else leaf.astype(jnp.uint8),
        masks,
        is_leaf=is_packed,
    )


def pack_masks(masks: Masks) -> Any:
    """Packs initial masks, so that the state stores codes of two bits.

    Args:
      masks: boolean masks.
    """
    return jax.tree.map(lambda mask: pack(mask.astype(jnp.uint8)), masks)


def active(codes: Any) -> Masks:
    """Returns boolean masks of the active weights.

    Outside of a trace, one program decodes all leaves. NumPy arrays are decoded on the
    host.

    Args:
      codes: codes of all leaves, packed or not.
    """
    leaves = jax.tree.leaves(codes, is_leaf=is_packed)
    on_host = all(isinstance(leaf, np.ndarray) for leaf in leaves)
    if on_host:  # nothing is compiled
        return jax.device_put(_active(codes))
    return _active_in_one_program(codes)


def _active(codes: Any) -> Any:
    """Decodes all leaves."""
    return jax.tree.map(
        lambda leaf: (unpack(leaf) & 1).astype(bool), codes, is_leaf=is_packed
    )


_active_in_one_program = jax.jit(_active)


def ever_active(codes: Any) -> Masks:
    """Returns boolean masks of the weights that are or were active.

    Args:
      codes: codes of all leaves, packed or not.
    """
    return jax.tree.map(lambda leaf: unpack(leaf) != 0, codes, is_leaf=is_packed)


def kept(codes: Any) -> Masks:
    """Returns masks of the weights whose optimizer state outlasts a change of masks.

    Args:
      codes: codes of all leaves after the change, packed or not.
    """
    return jax.tree.map(lambda leaf: unpack(leaf) == KEPT, codes, is_leaf=is_packed)


def change(
    codes: Any,
    masks: Masks,
    *,
    replaced: Bool[Array, "..."],
    counted: Bool[Array, "..."] | bool = True,
    reset: Masks | None = None,
) -> Any:
    """Changes the masks.

    Args:
      codes: codes before the change, packed or not.
      masks: the masks after it.
      replaced: whether no step was made since the masks last changed. The optimizer
        state of weights with code 3 has then not started yet.
      counted: whether weights that leave count as having been active.
      reset: masks of weights whose optimizer state starts here although they are active
        before and after the change; None if there are none.

    Returns:
      The codes after the change, packed like those before.
    """

    def change_leaf(leaf: Any, mask: Array, starts: Array | None = None) -> Any:
        old = unpack(leaf)
        # These may lead with the axis of replicates or devices.
        unstarted, counts = _align(replaced, old), _align(counted, old)
        started = (old == KEPT) | ((old == NEW) & ~unstarted)
        left = (started & counts) | (old == LEFT)
        stays = started if starts is None else started & ~starts
        inside = jnp.where(stays, jnp.uint8(KEPT), jnp.uint8(NEW))
        outside = jnp.where(left, jnp.uint8(LEFT), jnp.uint8(0))
        new = jnp.where(mask, inside, outside)
        return pack_like(new, leaf) if is_packed(leaf) else new

    trees = (masks,) if reset is None else (masks, reset)
    return jax.tree.map(change_leaf, codes, *trees, is_leaf=is_packed)


def _align(flag: Any, codes: Array) -> Array:
    """Gives a flag as many axes as codes, after its own."""
    flag = jnp.asarray(flag)
    return jnp.reshape(flag, (*flag.shape, *(1,) * (codes.ndim - flag.ndim)))
