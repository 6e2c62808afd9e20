"""Matching the leaves of an optimizer state to the weights they belong to.

Momenta, accumulators and slow weights are stored in an optimizer state under the names
of their parameters, at any depth of wrappers. Leaves are matched by name and shape, so
no specific optimizer has to be known here. `optax.tree.map_params` is not used because
it stops at the `MaskedNode`s of `optax.partition` and muon.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsparse.types import Masks

MatchingLeaves = list[tuple[tuple[Any, ...], Any]]


def matching_leaves(tree: Any, *, is_leaf: Callable[[Any], bool]) -> MatchingLeaves:
    """Lists what leaves of an optimizer state can belong to, with key paths.

    Args:
      tree: a tree of objects with a `shape` attribute, or None where state leaves of
        any shape belong to a path.
      is_leaf: returns True for the nodes of `tree` that are these objects.

    Returns:
      Pairs of key path and object.
    """
    return jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)


def matching_leaf(
    path: tuple[Any, ...], shape: tuple[int, ...], candidates: MatchingLeaves
) -> Any:
    """Finds the object that a leaf of an optimizer state belongs to.

    A leaf belongs to an object if its path ends with the path of the object and their
    shapes are equal.

    Args:
      path: key path of the leaf in the optimizer state.
      shape: shape of the leaf.
      candidates: pairs of key path and object, from `matching_leaves`. A None object
        matches leaves of any shape.

    Returns:
      The object with the longest matching path; None if nothing matches, or if the
      match is a None object.
    """
    matches = [
        (len(suffix), value)
        for suffix, value in candidates
        if path[len(path) - len(suffix) :] == suffix
        and (value is None or value.shape == shape)
    ]
    return max(matches, key=lambda match: match[0], default=(0, None))[1]


def reset_outside(
    keep: Masks, state: optax.OptState, initial: optax.OptState
) -> optax.OptState:
    """Resets the optimizer state of individual weights to its initial value.

    A leaf of `state` belongs to a mask if its key path ends with the path of the mask
    and their shapes are equal; if several masks match, the one with the longest path
    counts. Masks that are None take part in the matching: otherwise a leaf of
    "block/kernel" whose own mask is None would be matched to the mask of "kernel".

    Args:
      keep: masks of the weights whose optimizer state is kept; None for leaves that are
        never reset.
      state: current state of the optimizer.
      initial: initial state of the same optimizer, as its `init` returns it.

    Returns:
      `state` with the entries outside `keep` taken from `initial`.

    Deviations:
      State that does not have the shape of the weights cannot be reset weight by weight
      and stays as it is: adafactor's factored moments, the rows and columns of SM3,
      GaLore's projections, the L-BFGS history, anything that `optax.flatten` wraps, and
      scalars shared by all weights, such as Prodigy's.
    """
    masks = matching_leaves(keep, is_leaf=lambda leaf: leaf is None)

    def reset(path: tuple[Any, ...], leaf: Any, first: Any) -> Any:
        mask = matching_leaf(path, jnp.shape(leaf), masks)
        # Cast to the current dtype: an update may have widened it since `init`.
        return leaf if mask is None else jnp.where(mask, leaf, first.astype(leaf.dtype))

    return jax.tree_util.tree_map_with_path(reset, state, initial)
