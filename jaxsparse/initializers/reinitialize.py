"""Reinitialization: new weights for every leaf that has a mask.

Here the weights are drawn for given masks. In contrast, `prune` and `transforms` find
masks for given weights, and `orthogonal` draws both together.
"""

from typing import Any

import jax
from jaxtyping import Array, Bool, Key

from jaxsparse import arguments, fan_axes, rng, tree
from jaxsparse.initializers import sparse_kernels
from jaxsparse.types import Masks


@arguments.check(
    params=arguments.weights, masks=arguments.masks, draw=arguments.function
)
def redraw(
    params: Any,
    masks: Masks,
    draw: sparse_kernels.SparseInitializer,
    *,
    axes: fan_axes.Axes = None,
    key: Key[Array, ""],
) -> Any:
    """Draws new weights for every leaf that has a mask.

    Each leaf is drawn with a key that depends on its name, so an additional layer does
    not change the others. Each matrix of stacked layers and grouped convolutions is
    drawn separately. Can be used under `jit`, and under `vmap` over keys and masks.

    Args:
      params: any tree of parameters. Only names, shapes and dtypes of leaves with a
        mask are used, so shapes from `jax.eval_shape` suffice for these.
      masks: boolean masks with the nesting of `params`; None for leaves that are not
        changed.
      draw: sparse initializer, from `per_neuron`, `rescaled`, `layer_scaled` or
        `masked`; called as `draw(mask, dtype, key=key)` with masks [*positions, i, o].
      axes: which axes of the leaves are inputs and outputs, in any form that
        `fan_axes.of_tree` accepts; None to infer them from names and shapes.
      key: typed key for the whole network.

    Returns:
      Parameters with the nesting, shapes and dtypes of `params`, exactly 0 outside the
      masks. Leaves without a mask are returned unchanged, as the same objects.

    Raises:
      ValueError: if a mask and its parameter differ in shape, a layout does not fit a
        leaf, or a leaf is missing or unexpected; the message names the leaf.
      TypeError: if an argument has a wrong type.

    Examples:
      >>> params = {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}
      >>> ticket = {"kernel": jnp.zeros((4, 2), bool).at[0].set(True), "bias": None}
      >>> draw = initializers.rescaled(jax.nn.initializers.ones)
      >>> redraw(params, ticket, draw, key=jax.random.key(0))["kernel"]
      Array([[2., 2.],
             [0., 0.],
             [0., 0.],
             [0., 0.]], dtype=float32)
    """
    layouts = fan_axes.of_tree(params, axes)
    fitted = tree.match_structure(masks, params, fields=("masks", "params"))

    def redraw_leaf(name: str, leaf: Any, mask: Bool[Array, "..."] | None) -> Any:
        if mask is None:
            return leaf
        matrices = fan_axes.to_matrices(layouts[name], name, mask)
        own_key = rng.leaf_key(key, name)
        # A single matrix uses the key of the leaf itself, not a split of it.
        if len(matrices) == 1:
            weights = draw(matrices[0], leaf.dtype, key=own_key)[None]
        else:
            weights = jax.vmap(lambda one, key: draw(one, leaf.dtype, key=key))(
                matrices, jax.random.split(own_key, len(matrices))
            )
        return fan_axes.from_matrices(layouts[name], name, weights, leaf.shape)

    return tree.map_with_names(redraw_leaf, params, fitted)


@arguments.check(params=arguments.weights, masks=arguments.masks)
def sparsity_aware(
    params: Any,
    masks: Masks,
    *,
    fan: str = "in",
    distribution: str = "normal",
    scale: float = 1.0,
    axes: fan_axes.Axes = None,
    key: Key[Array, ""],
) -> Any:
    """Draws new weights with a variance for each neuron's active connections.

    This is `redraw` with `per_neuron`.

    Args:
      params: any tree of parameters. Only names, shapes and dtypes of leaves with a
        mask are used, so shapes from `jax.eval_shape` suffice for these.
      masks: boolean masks with the nesting of `params`; None for leaves that are not
        changed.
      fan: fan f that determines the variance of a weight: "in" for the fan-in of its
        output, "out" for the fan-out of its input, "average" for the mean of both;
        counted in the mask.
      distribution: "normal" (not truncated) or "uniform".
      scale: above 0; the variance is scale / max(1, f). Use 1 for linear networks and 2
        for ReLU.
      axes: which axes of the leaves are inputs and outputs, in any form that
        `fan_axes.of_tree` accepts; None to infer them from names and shapes.
      key: typed key for the whole network.

    Returns:
      Parameters with the nesting, shapes and dtypes of `params`, exactly 0 outside the
      masks. Leaves without a mask are returned unchanged, as the same objects.

    Raises:
      ValueError: if a name is unknown, the scale is not positive, a mask and its
        parameter differ in shape, a layout does not fit a leaf, or a leaf is missing or
        unexpected.
      TypeError: if an argument has a wrong type.

    Examples:
      >>> ticket = prune.prune(params, 0.9)
      >>> drawn = sparsity_aware(params, ticket, scale=2.0, key=jax.random.key(0))

    References:
      Evci, Ioannou, Keskin, Dauphin. Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win. 2020. arXiv:2010.03533, the sparsity-aware initialization.
    """
    draw = sparse_kernels.per_neuron(fan=fan, distribution=distribution, scale=scale)
    return redraw(params, masks, draw, axes=axes, key=key)
