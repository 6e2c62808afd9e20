"""Scores from the flow through a network, without data: SynFlow."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxsparse import masks as masks_lib
from jaxsparse.scores import gradient_scores
from jaxsparse.types import Masks, Params, Scores

# Flows below, or above its inverse, could leave float64 in single scores.
LEAST = 1e-200
ROUNDS = 4


def synflow(
    apply: Callable[[Params, Array], Any],
    params: Params,
    masks: Masks,
    shape: tuple[int, ...],
) -> Scores:
    r"""Scores each weight by its share in the flow from inputs to outputs.

    With :math:`R` the sum of the outputs of the network of absolute parameters
    :math:`|m w|` for an input of ones, the score is
    :math:`|w| \, \partial R / \partial |m w|`. In a chain of layers without biases the
    scores of every layer then have the sum :math:`R`, and of every hidden neuron as
    much comes in as goes out.

    The flow of a deep network is no float32, so that it is computed, and returned, in
    float64, whatever the setting of `jax_enable_x64`. `select` and `oneshot` read it as
    it is; elsewhere, outside `jax.enable_x64(True)`, JAX may make float32 of it.

    Where the flow is below 1e-200 or above 1e200 and proportional to the weights of
    every layer, as in a chain without biases however deep, layers are rescaled. All
    scores are then multiplied by one common factor, which changes no ranking.

    Args:
      apply: called as `apply(params, inputs)`, in inference mode; everything it returns
        is summed. It must not narrow float64.
      params: the weights.
      masks: which weights exist, same nesting as `params`.
      shape: shape of the input, with the axis of examples; one example will do.

    Returns:
      Scores in float64, not negative for layers that are monotone; None where the mask
      is None.

    Raises:
      ValueError: if a score is infinite or NaN even so. Under `jit` and `vmap` this
        cannot be seen, and such scores are returned.

    Examples:
      >>> params = {"w": jnp.array([[2.0], [-3.0]])}
      >>> mask = {"w": jnp.array([[True], [True]])}
      >>> synflow(lambda params, x: x @ params["w"], params, mask, (1, 2))
      {'w': Array([[2.],
             [3.]], dtype=float64)}

    Deviations:
      None known. As in the authors' code all parameters are taken by absolute value,
      those of biases and normalisations included, in double precision. The paper
      prunes by it in 100 steps; one call is one step.

    References:
      Tanaka, Kunin, Yamins, Ganguli. Pruning neural networks without any data by
      iteratively conserving synaptic flow. 2020. arXiv:2006.05467, section 6 and
      algorithm 1.
    """

    def flow(params: Params, inputs: Array) -> Float[Array, ""]:
        outputs = jax.tree.leaves(apply(params, inputs))
        return jnp.sum(jnp.stack([jnp.sum(leaf) for leaf in outputs]))

    with jax.enable_x64(True):
        sizes = jax.tree.map(lambda p: jnp.abs(p.astype(jnp.float64)), params)
        inputs = jnp.ones(shape, jnp.float64)
        total, scores = _share(flow, sizes, masks, inputs)
        is_plain = (total > LEAST) & (total < 1 / LEAST)
        if not isinstance(is_plain, jax.core.Tracer):
            scores = scores if is_plain else _rescale(flow, sizes, masks, inputs)
        else:
            scores = lax.cond(
                is_plain,
                lambda sizes: scores,
                lambda sizes: _rescale(flow, sizes, masks, inputs),
                sizes,
            )
    _check(scores)
    return scores


def _share(
    flow: gradient_scores.Loss, sizes: Params, masks: Masks, inputs: Array
) -> tuple[Float[Array, ""], Scores]:
    """Computes the flow and each weight's share in it, as the paper defines them."""
    masked = masks_lib.apply(masks, sizes)
    weights = masks_lib.tree_map(lambda _, leaf: leaf, masks, masked)
    total, slopes = jax.value_and_grad(gradient_scores.restricted(flow, masked))(
        weights, inputs
    )
    return total, masks_lib.tree_map(lambda _, w, s: w * s, masks, sizes, slopes)


def _rescale(
    flow: gradient_scores.Loss, sizes: Params, masks: Masks, inputs: Array
) -> Scores:
    """Computes shares with layers scaled so that the flow stays near 1.

    Returns:
      The shares times one common factor, if the flow is proportional to every layer;
      otherwise the shares as they are, for scaling would change their ranking.
    """
    factors = masks_lib.tree_map(_gain_to_one, masks, sizes)
    depth = len(jax.tree.leaves(factors))

    def scale(factors: Params) -> Params:
        return jax.tree.map(
            lambda factor, leaf: leaf if factor is None else factor * leaf,
            factors,
            sizes,
            is_leaf=lambda leaf: leaf is None,
        )

    def correct(_: Array, factors: Params) -> Params:
        total = flow(masks_lib.apply(masks, scale(factors)), inputs)
        # Of a flow that is 0 or infinite only the direction is known.
        known = jnp.clip(total, LEAST**1.5, LEAST**-1.5)
        power = jnp.exp(-jnp.log(known) / depth)
        return jax.tree.map(lambda factor: factor * power, factors)

    factors = lax.fori_loop(0, ROUNDS, correct, factors)
    total, scaled = _share(flow, scale(factors), masks, inputs)
    sums = masks_lib.tree_map(
        lambda mask, score: jnp.sum(jnp.where(mask, score, 0)), masks, scaled
    )
    sums = jnp.stack(jax.tree.leaves(sums))
    # Euler: a function proportional to a layer is the sum of the layer's shares.
    is_proportional = jnp.all(jnp.abs(sums - total) <= 1e-9 * total)
    plain = _share(flow, sizes, masks, inputs)[1]
    return jax.tree.map(
        lambda new, old: jnp.where(is_proportional, new, old), scaled, plain
    )


def _gain_to_one(mask: Array, size: Array) -> Float[Array, ""]:
    """Returns the factor by which a layer passes on as much as it takes in.

    Only about: it takes the last axis for outputs, and all of them to be alike.
    """
    gain = jnp.sum(jnp.where(mask, size, 0)) / size.shape[-1]
    return jnp.where((gain > 0) & (gain < jnp.inf), 1 / gain, 1.0)


def _check(scores: Scores) -> None:
    """Refuses scores that are there to be seen and not finite."""
    leaves = jax.tree.leaves(scores)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return
    for name, leaf in zip(masks_lib.names(scores), leaves, strict=True):
        if not np.all(np.isfinite(np.asarray(leaf))):
            raise ValueError(
                f"params: the flow through {name} is not finite in float64; wanted "
                "less than 1e308; scale the layers down, or normalise in `apply`"
            )
