"""Applies masks to parameters, and maps functions over leaves with masks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsparse import arguments, rng, tree
from jaxsparse.types import Masks, Params


@arguments.check(fn=arguments.function)
def tree_map(fn: Callable[..., Any], masks: Masks, *trees: Any) -> Any:
    """Maps a function over prunable leaves; None stays None.

    Leaves are matched by name, so the node types of the trees may differ, such as dict
    and FrozenDict. Masks of a part of a network use only that part of the other trees.

    Args:
      fn: called as `fn(mask, *leaves)` for each leaf with a mask.
      masks: boolean masks; None where a leaf is not visited.
      *trees: trees with the leaves of `masks`. A leaf may be None, and there may be
        more leaves where `masks` has None.

    Returns:
      A tree of results with the nesting of `masks`.

    Raises:
      ValueError: if a leaf is missing from a tree or unexpected; the message names it.
    """
    fitted = [
        tree.match_structure(
            other, masks, fields=(f"trees[{i}]", "masks"), shapes=False
        )
        for i, other in enumerate(trees)
    ]
    # Without `is_leaf`, JAX treats None as an empty subtree, which does not match a
    # leaf of another tree.
    return jax.tree.map(
        lambda mask, *leaves: mask if tree.is_absent(mask) else fn(mask, *leaves),
        masks,
        *fitted,
        is_leaf=tree.is_absent,
    )


def apply(masks: Masks, params: Params) -> Params:
    """Sets the weights outside the masks to exactly zero.

    This is a selection and not a product, so infinities and NaN outside the masks
    become zero, too. Leaves with the mask None are returned unchanged.

    Args:
      masks: boolean masks; None where a leaf is not prunable.
      params: parameters with the leaf names and shapes of the masks; the types of nodes
        may differ, such as dict and FrozenDict. Masks from `optax.partition` or
        `optax.masked` cover only a part of the parameters, and the rest is returned
        unchanged.

    Returns:
      Parameters with the nesting, dtypes and sharding of `params`.

    Raises:
      ValueError: if a leaf is missing, unexpected or has another shape, or if a mask is
        not boolean, as is the case if the two arguments are swapped; the message names
        the leaf.

    Examples:
      >>> masks = {"kernel": jnp.array([True, False]), "bias": None}
      >>> apply(masks, {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([5.0])})
      {'bias': Array([5.], dtype=float32), 'kernel': Array([3., 0.], dtype=float32)}
    """
    check_boolean(masks, remedy="masks.apply takes masks first, then parameters")
    fitted = tree.match_structure(masks, params, fields=("masks", "params"))
    return jax.tree.map(
        lambda mask, leaf: (
            leaf
            if tree.is_absent(mask)
            else jnp.where(mask, leaf, jnp.zeros((), leaf.dtype))
        ),
        fitted,
        params,
        is_leaf=tree.is_absent,
    )


def by_name(masks: Masks, params: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Returns the masks by the names of their leaves in a tree.

    Args:
      masks: concrete boolean masks; leaves without a mask are None or missing.
      params: tree whose leaves the masks belong to.
      prefix: what precedes the names of `masks` in `params`.

    Raises:
      ValueError: if a mask is not boolean, or fits no leaf of numbers; the message
        names it.

    Examples:
      >>> by_name({"w": jnp.array([True])}, {"a": {"w": jnp.ones(1)}}, prefix="a/")
      {'a/w': array([ True])}
    """
    check_boolean(masks, remedy="make masks with `masks.ones`")
    leaves = {
        n: leaf for n, leaf in tree.named_leaves(params).items() if not rng.is_key(leaf)
    }
    found = {
        prefix + name: np.asarray(mask)
        for name, mask in tree.named_leaves(masks).items()
    }
    for name, mask in found.items():
        shape = np.shape(leaves[name]) if name in leaves else "no such leaf"
        if mask.shape != shape:
            raise ValueError(
                f"masks: {name}: expected the name and shape of a leaf of params, "
                f"{shape}, got {mask.shape}; pass masks of the same network, with the "
                "nesting of params"
            )
    return found


def check_boolean(masks: Masks, *, remedy: str) -> None:
    """Checks that all masks are boolean.

    Args:
      masks: the tree to check; only dtypes are used.
      remedy: what the user can do; the end of the error message.

    Raises:
      ValueError: if a leaf has another dtype; the message names the first such leaf.
    """
    for name, leaf in tree.named_leaves(masks).items():
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        # Compared as text, so that leaves without a dtype are checked by their type.
        if str(kind) != "bool":
            raise ValueError(
                f"masks: {name}: expected a boolean array, got {kind}; {remedy}"
            )
