"""NTK-SAP: weights that matter to the spectrum of the neural tangent kernel."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, PyTree

from jaxsparse import arguments, rng, tree
from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks, Params, Scores


@arguments.check(
    apply=arguments.function,
    params=arguments.weights,
    masks=arguments.masks,
    key=arguments.key,
    epsilon=arguments.number(0, above=True),
    initialize=arguments.optional(arguments.function),
)
def ntk_sap(
    apply: Callable[..., Array],
    params: Params,
    masks: Masks,
    batches: PyTree,
    *,
    key: Key[Array, ""],
    epsilon: float = 0.01,
    initialize: Callable[[Key[Array, ""]], Params] | None = None,
) -> Scores:
    r"""Scores each weight by its influence on the trace of the neural tangent kernel.

    With masks :math:`m`, random weights :math:`\theta`, random inputs :math:`x` and
    random directions :math:`z`, all standard normal but the weights, the score is

    .. math:: \left| \frac{\partial}{\partial m} \sum
       \lVert f(m \theta; x) - f(m (\theta + \epsilon z); x) \rVert_2^2 \right|

    with a sum over batches, each of which has weights, inputs and directions of its
    own. The squared difference divided by :math:`\epsilon^2` estimates the squared
    Frobenius norm of the Jacobian, which is the trace of the kernel.

    `prune.prune_iteratively` prunes by it with 20 to 100 iterations, as in the paper;
    the random numbers differ between iterations, since the number of active weights is
    folded into the key.

    Args:
      apply: called as `apply(params, inputs)`, where `inputs` is a tree like `batches`
        without its first axis; returns outputs [b, ...].
      params: parameters of the network.
      masks: masks of the active weights; None where a leaf is not prunable.
      batches: tree of arrays [n, b, ...] of n batches, n at least 1. Only shapes and
        dtypes are used; leaves are floating, since inputs are drawn in their place.
        Batches are processed one at a time.
      key: typed random key.
      epsilon: standard deviation of the change of the weights, above 0.
      initialize: function of a key to new random parameters like `params`. None
        permutes the entries of each prunable leaf, which keeps the distribution of its
        initial values.

    Returns:
      Scores of 0 or more in float32, in which masked weights are computed too; None
      where the mask is None.

    Raises:
      ValueError: if a number is out of range, there are no batches, or leaves of
        `batches` disagree about n.
      TypeError: if an argument has a wrong type, or a leaf of `batches` is not
        floating; the message names it.

    Examples:
      >>> key, batches = jax.random.key(0), inputs[None]
      >>> score = lambda p, m: ntk_sap(model.apply, p, m, batches, key=key)
      >>> ticket = jaxsparse.prune.prune_iteratively(
      ...     params, 0.9, score=score, iterations=5
      ... )
      >>> masks.num_active(ticket)
      8

    Deviations:
      The authors draw weights by the initializer of the network; pass `initialize` for
      that. They set the statistics of BatchNorm to those of each random batch; here
      `apply` decides what it normalizes by, in configs each pass by its own batch. They
      multiply the score by the mask; here it also says what a pruned weight would be
      worth.

    References:
      Wang, Li, Sun. NTK-SAP: Improving neural network pruning by aligning training
      dynamics. 2023. arXiv:2304.02840, section 4; details are from the authors' code.
    """
    count = tree.leading_axis(batches, field="batches")
    for name, leaf in tree.named_leaves(batches).items():
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"batches: {name}: expected a floating dtype, since normal inputs are "
                f"drawn in it, got {leaf.dtype}; convert it to float32"
            )
    active = sum(jnp.sum(mask) for mask in jax.tree.leaves(masks))
    key = jax.random.fold_in(rng.as_typed(key), active)
    gates = jax.tree.map(lambda mask: mask.astype(jnp.float32), masks)

    def change(
        gates: Any, weights: Params, moved: Params, inputs: Any
    ) -> Float[Array, ""]:
        def outputs(leaves: Params) -> Array:
            merged = jax.tree.map(
                lambda gate, leaf: leaf if gate is None else gate * leaf,
                *(gates, leaves),
                is_leaf=lambda leaf: leaf is None,
            )
            return apply(merged, inputs)

        return jnp.sum(jnp.square(outputs(weights) - outputs(moved)))

    def add(total: Any, item: tuple[Key[Array, ""], Any]) -> tuple[Any, None]:
        draw, shapes = item
        draws = jax.random.split(draw, 3)
        weights = _shuffle(draws[0], masks, params)
        if initialize is not None:
            weights = initialize(draws[0])
        steps = _normal(draws[1], masks_lib.tree_map(lambda _, w: w, masks, weights))
        moved = jax.tree.map(
            lambda step, leaf: leaf if step is None else leaf + epsilon * step,
            *(steps, weights),
            is_leaf=lambda leaf: leaf is None,
        )
        slope = jax.grad(change)(gates, weights, moved, _normal(draws[2], shapes))
        return jax.tree.map(jnp.add, total, slope), None

    zeros = jax.tree.map(jnp.zeros_like, gates)
    total, _ = lax.scan(add, zeros, (jax.random.split(key, count), batches))
    return jax.tree.map(jnp.abs, total)


def _normal(key: Key[Array, ""], shapes: Any) -> Any:
    """Draws standard normal numbers with the shapes and dtypes of a tree."""
    return tree.map_with_names(
        lambda name, leaf: jax.random.normal(
            rng.leaf_key(key, name), leaf.shape, leaf.dtype
        ),
        shapes,
    )


def _shuffle(key: Key[Array, ""], masks: Masks, params: Params) -> Params:
    """Permutes the entries of each prunable leaf; other leaves stay."""
    names = {*tree.names(masks)}
    return tree.map_with_names(
        lambda name, leaf: (
            jax.random.permutation(rng.leaf_key(key, name), leaf.ravel()).reshape(
                leaf.shape
            )
            if name in names
            else leaf
        ),
        params,
    )
