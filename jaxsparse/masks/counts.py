"""Counts the active weights of masks, and compares masks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxsparse import tree
from jaxsparse.masks.mapping import check_boolean
from jaxsparse.tree import names
from jaxsparse.types import Masks


class LayerCount(NamedTuple):
    """Number of active weights of one layer.

    Attributes:
      num_active: number of weights inside the mask.
      size: number of weights of the layer.
    """

    num_active: int
    size: int


def _count(leaf: Bool[Array, "..."]) -> int:
    return int(np.count_nonzero(np.asarray(leaf)))


def num_active(masks: Masks) -> int:
    """Counts the active weights.

    Runs on the host and returns a Python integer: integers above 2**24 are not exact in
    float32, so a float32 count is already wrong for a network of 25 million weights.

    Args:
      masks: concrete masks; this function cannot be used under `jit`.

    Returns:
      Number of True entries over all prunable leaves.

    Raises:
      ValueError: if a mask is not boolean.
    """
    check_boolean(masks, remedy="make masks with `masks.ones`")
    return sum(_count(leaf) for leaf in jax.tree.leaves(masks))


def size(masks: Masks) -> int:
    """Counts the prunable weights, active or not.

    Args:
      masks: masks, or shapes from `jax.eval_shape`; only shapes are used.

    Raises:
      TypeError: if a leaf is neither an array nor a shape.
    """
    leaves = jax.tree.leaves(masks)
    for leaf in leaves:
        if not hasattr(leaf, "size"):
            raise TypeError(
                "masks: expected boolean arrays, such as from masks.ones, or their "
                f"shapes, got the leaf {leaf!r}"
            )
    return sum(leaf.size for leaf in leaves)


def sparsity(masks: Masks) -> float:
    """Computes the fraction of prunable weights that the masks remove.

    Args:
      masks: concrete masks.

    Returns:
      The sparsity, in [0, 1].

    Raises:
      ValueError: if there are no prunable weights, or a mask is not boolean.
    """
    check_boolean(masks, remedy="make masks with `masks.ones`")
    total = size(masks)
    if not total:
        raise ValueError(
            f"masks: expected prunable weights, got none in the leaves {names(masks)}; "
            "make masks with `masks.ones(params)`"
        )
    return 1.0 - num_active(masks) / total


def layer_counts(masks: Masks) -> dict[str, LayerCount]:
    """Counts the active weights of each prunable leaf.

    Args:
      masks: concrete masks.

    Returns:
      The counts by leaf name, in the order of the tree's leaves.

    Raises:
      ValueError: if a mask is not boolean.
    """
    check_boolean(masks, remedy="make masks with `masks.ones`")
    leaves = jax.tree.leaves(masks)
    return {
        name: LayerCount(_count(leaf), leaf.size)
        for name, leaf in zip(names(masks), leaves, strict=True)
    }


def is_nested(inner: Masks, outer: Masks) -> Bool[Array, ""]:
    """Returns whether every active weight of `inner` is also active in `outer`.

    In iterative magnitude pruning, `is_nested(level[n + 1], level[n])` holds for every
    n.

    Args:
      inner: the sparser masks.
      outer: the denser masks, with the same leaf names and shapes.

    Returns:
      A boolean scalar; this function can be used under `jit`.

    Raises:
      ValueError: if the leaves differ; the message names the first one that does.
    """
    inner = tree.match_structure(
        inner, outer, fields=("inner", "outer"), same_leaves=True
    )
    inside = jax.tree.map(lambda a, b: jnp.all(~a | b), inner, outer)
    # `True` makes the stack non-empty for trees without prunable leaves.
    return jnp.all(jnp.stack([*jax.tree.leaves(inside), jnp.array(True)]))
