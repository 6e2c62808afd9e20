"""Proximal L1: steps of an optimizer, each followed by a soft threshold."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxsparse import arguments, layer_options, tree
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms.project import project
from jaxsparse.types import Params, Step


@arguments.check(l1_penalty=arguments.number(0))
def proximal_l1(
    inner: optax.GradientTransformation,
    *,
    l1_penalty: float,
    learning_rate: float | Callable[[Step], Any],
    layers: LayerOptions | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Minimizes the loss plus an L1 penalty by proximal steps, which give exact zeros.

    After every step of the optimizer, which does not see the penalty, its proximal
    operator is applied: with the learning rate :math:`\eta_t` and the coefficient
    :math:`\lambda`, weights become
    :math:`\mathrm{sign}(w) \, \mathrm{relu}(|w| - \eta_t \lambda)`. How many weights
    end at zero follows from the coefficient.

    Args:
      inner: the optimizer to wrap, such as SGD, of the same learning rate; any optax
        gradient transformation except `optax.lookahead`.
      l1_penalty: the coefficient lambda of the sum of magnitudes, finite and at least
        0.
      learning_rate: the learning rate eta, or a function of the step to it, with steps
        counted from 0 as in optax.
      layers: which leaves have masks, and which of them are dense, without a penalty.
        All other options must have their defaults.

    Returns:
      The wrapped optimizer.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = transforms.proximal_l1(
      ...     optax.sgd(0.1), l1_penalty=1e-4, learning_rate=0.1
      ... )

    Deviations:
      With momentum or adaptive steps in `inner`, the threshold is that of plain SGD:
      ProxSGD and adaptive proximal methods scale it with the step.

    References:
      Parikh, Boyd. Proximal Algorithms. Foundations and Trends in Optimization, 2014,
      sections 4.2 and 6.5.2.
    """
    layers = layer_options.resolve(
        layers,
        function="proximal_l1",
        distribution=None,
        unused=layer_options.ALL_BUT_LEAVES,
    )
    rate = learning_rate if callable(learning_rate) else lambda step: learning_rate
    if not callable(learning_rate):
        arguments.number(0)("learning_rate", learning_rate)

    def shrink(params: Params, step: Step) -> Params:
        threshold = l1_penalty * jnp.asarray(rate(step - 1))
        masks = jax.eval_shape(lambda: masks_lib.ones(params, prunable=layers.prunable))
        chosen = {
            name
            for name in masks_lib.names(masks)
            if not masks_lib.matches(name, layers.dense)
        }
        masks_lib.check_globs(layers.dense, masks_lib.names(masks), field="dense")

        def of_leaf(name: str, weight: Array) -> Array:
            if name not in chosen:
                return weight
            left = jax.nn.relu(jnp.abs(weight) - threshold.astype(weight.dtype))
            return jnp.sign(weight) * left

        return tree.map_with_names(of_leaf, params)

    return project(inner, shrink, prunable=layers.prunable)
