"""Which leaves of an optimiser's state belong to which weight.

Momenta, accumulators and slow weights lie in an optimiser's state under the names
of the parameters they belong to, however deep the wrappers around them. Leaves are
matched by that name and by shape, so that no optimiser has to be known here:
`optax.tree.map_params` stops at the MaskedNodes of `optax.partition` and muon.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsparse.types import Masks

MatchingLeaves = list[tuple[tuple[Any, ...], Any]]


def matching_leaves(tree: Any, *, is_leaf: Callable[[Any], bool]) -> MatchingLeaves:
    """Lists what leaves can belong to, by its path.

    Args:
      tree: of things that have a shape, or None for what owns leaves of any shape.
      is_leaf: says which nodes of the tree are these things.
    """
    return jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)


def matching_leaf(
    path: tuple[Any, ...], shape: tuple[int, ...], among: MatchingLeaves
) -> Any:
    """Finds what a leaf belongs to: its path ends in the owner's, and shapes agree.

    Returns:
      Of several owners the one with the longest path; None if there is none.
    """
    mine = [
        (len(own), thing)
        for own, thing in among
        if path[len(path) - len(own) :] == own
        and (thing is None or thing.shape == shape)
    ]
    return max(mine, key=lambda match: match[0], default=(0, None))[1]


def reset_outside(
    keep: Masks, state: optax.OptState, initial: optax.OptState
) -> optax.OptState:
    """Sets what an optimiser remembers of single weights back to its initial value.

    A leaf of `state` belongs to a mask if its key path ends in the mask's and their
    shapes are equal; where several do, to the one with the longest path. A mask of
    None owns leaves too, or "block/kernel" would fall to the mask of "kernel".

    Args:
      keep: weights whose memory stays; None where nothing is to be reset.
      state: present state of the optimiser.
      initial: what `init` of the same optimiser returns.

    Returns:
      `state` with the entries outside `keep` taken from `initial`.

    Deviations:
      Memory in other shapes than the weights' cannot be reset weight by weight and
      stays as it is: adafactor's factored moments, SM3's rows and columns, GaLore's
      projections, the history of L-BFGS, whatever `optax.flatten` wraps, and scalars
      over all weights, such as Prodigy's.
    """
    masks = matching_leaves(keep, is_leaf=lambda leaf: leaf is None)

    def reset(path: tuple[Any, ...], leaf: Any, first: Any) -> Any:
        mask = matching_leaf(path, jnp.shape(leaf), masks)
        # In the dtype it has by now: an update may have widened it.
        return leaf if mask is None else jnp.where(mask, leaf, first.astype(leaf.dtype))

    return jax.tree_util.tree_map_with_path(reset, state, initial)
