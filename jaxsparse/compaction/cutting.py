"""Takes removed units out of parameters and masks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsparse import rng, tree
from jaxsparse.compaction.removed_units import Removed

Cuts = dict[str, dict[int, tuple[int, ...]]]


def cuts_of(removed: Removed) -> Cuts:
    """Lists the indices to remove, by leaf and axis.

    Args:
      removed: the units to remove.
    """
    program, axes, _ = removed.labeled
    found: Cuts = {}
    for name, number in program.leaves.items():
        for i, axis in enumerate(axes[number]):
            indices = np.flatnonzero(removed.along(axis))
            if len(indices):
                found.setdefault(name, {})[i] = tuple(indices.tolist())
    return found


def cut(
    params: Any, cuts: Cuts, corrections: dict[str, np.ndarray], *, prefix: str = ""
) -> Any:
    """Adds corrections to leaves and removes indices.

    Args:
      params: any tree; None stays None.
      cuts: indices to remove, by leaf and axis.
      corrections: what is added to leaves, by name.
      prefix: what precedes the names of this tree in `cuts`.

    Returns:
      A tree with the same nesting and dtypes.
    """

    def change(name: str, leaf: Any) -> Any:
        spec = cuts.get(prefix + name, {})
        added = corrections.get(prefix + name)
        if not spec and added is None:
            return leaf
        value = np.asarray(leaf)
        if added is not None:
            wide = np.promote_types(value.dtype, np.float32)
            value = (value.astype(wide) + added).astype(value.dtype)
        for axis, indices in spec.items():
            value = np.delete(value, indices, axis)
        return value if isinstance(leaf, np.ndarray) else jnp.asarray(value)

    return tree.map_with_names(change, params)


def activate(
    masks: Any, corrections: dict[str, np.ndarray], *, prefix: str = ""
) -> Any:
    """Activates the weights that take up a constant, so that masking keeps it.

    Args:
      masks: boolean masks; None stays None.
      corrections: what is added to leaves, by name.
      prefix: what precedes the names of this tree in `corrections`.

    Returns:
      The masks, True also where a correction is not 0.
    """

    def change(name: str, leaf: Any) -> Any:
        added = corrections.get(prefix + name)
        if added is None or not added.any():
            return leaf
        value = np.asarray(leaf) | (added != 0)
        return value if isinstance(leaf, np.ndarray) else jnp.asarray(value)

    return tree.map_with_names(change, masks)


def size(params: Any) -> int:
    """Counts the entries of all floating leaves.

    Args:
      params: any tree.
    """
    return sum(leaf.size for leaf in _arrays(params) if _is_float(leaf))


def num_bytes(params: Any) -> int:
    """Counts the bytes of all leaves.

    Args:
      params: any tree.
    """
    return sum(leaf.nbytes for leaf in _arrays(params))


def _is_float(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _arrays(params: Any) -> list[Any]:
    leaves = [
        leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
        for leaf in jax.tree.leaves(params)
    ]
    return [leaf for leaf in leaves if not rng.is_key(leaf)]
