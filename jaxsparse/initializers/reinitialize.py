"""Redrawing: new weights for every leaf that has a mask.

The masks come first here and the weights after. `oneshot` and `transforms` find masks
for given weights; `orthogonal` finds both at once.
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
    """Draws anew every leaf that has a mask.

    Each leaf draws with a key of its name, so adding a layer changes no other. Stacked
    layers and the groups of a convolution are drawn one by one. Works under `jit` and
    under `vmap` over keys and masks.

    Args:
      params: any tree of parameters. Of leaves with a mask only names, shapes and
        dtypes are used, so that shapes from `jax.eval_shape` will do.
      masks: which weights exist, same nesting; None for a leaf to leave alone.
      draw: what `per_neuron`, `rescaled`, `layer_scaled` or `masked` made.
      axes: which axes of the leaves are inputs and outputs, see `fan_axes`; None to
        infer them from names and shapes.
      key: one key for the whole network.

    Returns:
      Parameters with the nesting, shapes and dtypes of `params`, exactly 0 outside the
      masks; leaves without a mask are the very objects that came.

    Raises:
      ValueError: if a mask and its leaf differ in shape or the layout does not fit
        them, naming the leaf; or if nestings differ.

    Examples:
      >>> params = {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}
      >>> masks = {"kernel": jnp.zeros((4, 2), bool).at[0].set(True), "bias": None}
      >>> draw = rescaled(jax.nn.initializers.ones)
      >>> redraw(params, masks, draw, key=jax.random.key(0))["kernel"]
      Array([[2., 2.],
             [0., 0.],
             [0., 0.],
             [0., 0.]], dtype=float32)
    """
    layouts = fan_axes.of_tree(params, axes)
    fitted = tree.match_structure(masks, params, fields=("masks", "params"))

    def one(name: str, leaf: Any, mask: Bool[Array, "..."] | None) -> Any:
        if mask is None:
            return leaf
        matrices = fan_axes.to_matrices(layouts[name], name, mask)
        mine = rng.leaf_key(key, name)
        if len(matrices) == 1:
            weights = draw(matrices[0], leaf.dtype, key=mine)[None]
        else:
            weights = jax.vmap(lambda one, key: draw(one, leaf.dtype, key=key))(
                matrices, jax.random.split(mine, len(matrices))
            )
        return fan_axes.from_matrices(layouts[name], name, weights, leaf.shape)

    return tree.map_with_names(one, params, fitted)


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
    """Draws anew every leaf that has a mask, each neuron by its own connections.

    It is `redraw` with `per_neuron`, where the law is given.

    Args:
      params: as in `redraw`.
      masks: as in `redraw`.
      fan: "in", "out" or "average", see `per_neuron`.
      distribution: "normal" or "uniform".
      scale: the variance is this over the fan; 1 if linear, 2 with ReLU.
      axes: as in `redraw`.
      key: one key for the whole network.

    Returns:
      As `redraw`.

    Raises:
      ValueError: as `redraw` and `per_neuron`.

    Examples:
      >>> ticket = oneshot.prune(params, 0.95)
      >>> params = sparsity_aware(params, ticket, scale=2.0, key=jax.random.key(0))

    References:
      Evci, Ioannou, Keskin, Dauphin. Gradient Flow in Sparse Neural Networks and How
      Lottery Tickets Win. 2020. arXiv:2010.03533, the sparsity-aware initialisation.
    """
    draw = sparse_kernels.per_neuron(fan=fan, distribution=distribution, scale=scale)
    return redraw(params, masks, draw, axes=axes, key=key)
