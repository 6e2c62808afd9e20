"""SuPar: scales of initial weights and learning rates that suit width and density."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxsparse import arguments, fan_axes, tree
from jaxsparse.types import Masks


class SuparFactors(NamedTuple):
    """Factors of each leaf, float32 scalars with the nesting of the parameters.

    Attributes:
      init: what the weights are multiplied by, if they are drawn with the standard
        deviations of the base network.
      learning_rate: what the learning rate of the base network is multiplied by.
    """

    init: Any
    learning_rate: Any


@arguments.check(params=arguments.weights, masks=arguments.masks)
def supar(
    params: Any, masks: Masks, *, base: Any = None, axes: fan_axes.Axes = None
) -> SuparFactors:
    r"""Computes the factors of the sparse maximal update parameterization (SuPar).

    Let a network be :math:`m_d` times as wide as a dense base network and have the
    density :math:`\rho`. With Adam, activations and their changes in a step stay as
    large as in the base network, so that its learning rate can be kept, if

    - initial weights of hidden layers are multiplied by :math:`1 / \sqrt{m_d \rho}` and
      their learning rate by :math:`1 / (m_d \rho)`;
    - both are multiplied by :math:`1 / (m_d \rho)` in output layers, whose number of
      inputs has grown and whose number of outputs has not;
    - nothing else is changed, such as biases and normalization.

    Here, :math:`m_d` is the ratio of the numbers of inputs and :math:`\rho` the
    density, for each leaf of two or more axes.

    Args:
      params: any tree of parameters, or their shapes.
      masks: boolean masks with the nesting of `params`, which may be traced; leaves
        without a mask are dense.
      base: parameters of the base network, or their shapes, with the nesting of
        `params`; None for a network of the same width, which corrects for the density
        only.
      axes: which axes of the leaves are inputs and outputs, in any form that
        `fan_axes.of_tree` accepts; None to infer them from names and shapes.

    Returns:
      The factors; those of a layer without active weights are 1. `scale_updates`
      applies those of the learning rate.

    Raises:
      ValueError: if a layout does not fit a leaf, or `base` has other leaves; the
        message names the leaf.
      TypeError: if an argument has a wrong type.

    Examples:
      >>> params = {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}
      >>> ticket = {"kernel": jnp.zeros((4, 2), bool).at[0].set(True), "bias": None}
      >>> factors = supar(params, ticket)
      >>> float(factors.init["kernel"]), float(factors.learning_rate["kernel"])
      (2.0, 4.0)
      >>> adam = optax.chain(optax.adam(1e-3), scale_updates(factors.learning_rate))
      >>> tx = transforms.fixed(adam, masks=ticket)

    Deviations:
      The authors divide the outputs of the network by :math:`m_d` in the forward pass
      and keep weights and learning rate of the last layer; with Adam, the factors here
      are equivalent, and no network has to be changed. They keep the last layer dense.

    References:
      Dey, Bergsma, Hestness. Sparse maximal update parameterization: A holistic
      approach to sparse training dynamics. 2024. arXiv:2405.15743, table 1.
    """
    layouts = fan_axes.of_tree(params, axes)
    like = tree.match_structure(
        params if base is None else base,
        params,
        fields=("base", "params"),
        shapes=False,
    )
    fitted = tree.match_structure(masks, params, fields=("masks", "params"))

    def ratio(name: str, leaf: Any, mask: Any, small: Any) -> tuple[Any, bool]:
        """Returns the growth of the active fan-in, and whether outputs did not grow."""
        if len(leaf.shape) < 2:
            return 1.0, False
        fans, of_base = (
            fan_axes.fans(layouts[name], name, each.shape) for each in (leaf, small)
        )
        # Counted as integers: a sum of ones in float32 stops at 2**24.
        count = None if mask is None else jnp.sum(mask, dtype=jnp.int32)
        density = 1.0 if count is None else count / mask.size
        is_output = fans.inputs != of_base.inputs and fans.outputs == of_base.outputs
        growth = fans.inputs / of_base.inputs * density
        # A layer without weights has nothing to scale; 1 / 0 makes updates NaN.
        return jnp.where(density > 0, growth, 1), is_output

    def init(name: str, leaf: Any, mask: Any, small: Any) -> Array:
        growth, is_output = ratio(name, leaf, mask, small)
        return jnp.float32(1) / (growth if is_output else jnp.sqrt(growth))

    def rate(name: str, leaf: Any, mask: Any, small: Any) -> Array:
        return jnp.float32(1) / ratio(name, leaf, mask, small)[0]

    return SuparFactors(
        *(tree.map_with_names(each, params, fitted, like) for each in (init, rate))
    )


def scale_updates(factors: Any) -> optax.GradientTransformation:
    """Makes a transformation that multiplies the updates of each leaf by a factor.

    Args:
      factors: scalars with the nesting of the updates.

    Returns:
      A transformation without state, for use after an optimizer.

    Examples:
      >>> halves, updates = scale_updates({"w": 0.5}), {"w": jnp.array([2.0])}
      >>> halves.update(updates, halves.init(updates))[0]
      {'w': Array([1.], dtype=float32)}
    """
    return optax.stateless(
        lambda updates, _: jax.tree.map(
            lambda update, factor: (update * factor).astype(update.dtype),
            updates,
            factors,
        )
    )
