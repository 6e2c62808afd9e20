"""Matches the trees that callers pass to a sparse optimizer to those it expects."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxsparse import tree
from jaxsparse.types import Grads, Masks, Params


def is_placeholder(params: Any) -> bool:
    """Returns whether `params` is the placeholder of `optax.tree.map_params`.

    To find out which leaves of an optimizer state belong to parameters, `map_params`
    calls `init` with a single pytree node of a private type, without leaves, and looks
    for that node in the state it gets.

    Args:
      params: the argument of `init`.
    """
    structure = jax.tree.structure(params)
    is_leafless_node = structure.num_nodes == 1 and structure.num_leaves == 0
    return is_leafless_node and not isinstance(params, Mapping | Sequence | None)


def fit_grads(masks: Masks, grads: Grads, params: Params) -> Grads:
    """Gives gradients the nesting of the weights; every prunable leaf must have one.

    Args:
      masks: masks of the prunable leaves; None elsewhere.
      grads: gradients, None where a leaf has none.
      params: the weights. Leaves must have equal names and shapes; node types, such as
        dict and FrozenDict, may differ.

    Returns:
      The gradients in the nesting of `params`.

    Raises:
      ValueError: if a gradient is missing or does not fit; the message names the leaf.
    """
    available = tree.named_leaves(grads)
    for name in tree.names(masks):
        if name not in available:
            raise ValueError(
                f"grads: expected a gradient for {name}, which is prunable, got None; "
                "pass zeros, or exclude the leaf with `prunable=`"
            )
    return tree.match_structure(grads, params, fields=("grads", "params"))


def update_grads(grads: Grads, growth_grads: Any, params: Params) -> Any:
    """Returns what a mask update sees in place of the gradient, in its nesting.

    Args:
      grads: the dense gradient.
      growth_grads: the caller's gradient for mask updates, as a tree or a function of
        the masked weights; None for `grads`.
      params: the weights, whose nesting the result has. A function stays as it is.
    """
    if growth_grads is None:
        return grads
    if is_function(growth_grads):
        return growth_grads
    return tree.match_structure(growth_grads, params, fields=("growth_grads", "params"))


def is_function(grads: Any) -> bool:
    """True for functions; false for callable pytrees such as equinox modules.

    Args:
      grads: a tree of gradients, or a function that computes them.
    """
    return callable(grads) and jax.tree.structure(grads) == jax.tree.structure(0)
