"""Checks of trees of arrays, by shapes and dtypes only."""

from typing import Any

import numpy as np

from jaxsparse import tree


def masks(name: str, value: Any) -> None:
    """Checks that a value is a tree of boolean arrays, with at least one leaf.

    Raises:
      TypeError: if a leaf is not an array.
      ValueError: if there are no leaves, or an array is not boolean; the message names
        the leaf.
    """
    for leaf_name, leaf in _arrays(name, value, what="boolean arrays").items():
        if leaf.dtype != np.bool:
            raise ValueError(
                f"{_place(name, leaf_name)}: expected a boolean array, got dtype "
                f"{leaf.dtype}; make masks with `masks.ones`"
            )


def weights(name: str, value: Any) -> None:
    """Checks that a value is a tree of arrays, with at least one leaf.

    Raises:
      TypeError: if a leaf is not an array; the message names the leaf.
      ValueError: if there are no leaves.
    """
    _arrays(name, value, what="arrays")


def _arrays(name: str, value: Any, *, what: str) -> dict[str, Any]:
    """Returns the leaves of a tree of arrays by name, or raises if it is not one."""
    leaves = tree.named_leaves(value)
    if not leaves:
        raise ValueError(f"{name}: expected a tree of {what}, got no leaves")
    for leaf_name, leaf in leaves.items():
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise TypeError(
                f"{_place(name, leaf_name)}: expected a tree of {what}, got the leaf "
                f"{leaf!r}"
            )
    return leaves


def _place(name: str, leaf_name: str) -> str:
    """Names a leaf of an argument; a bare array has a leaf without a name."""
    return f"{name}: {leaf_name}" if leaf_name else name
