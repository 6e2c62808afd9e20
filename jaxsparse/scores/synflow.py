"""Scores from the synaptic flow through a network, without data: SynFlow."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxsparse import arguments, tree
from jaxsparse import masks as masks_lib
from jaxsparse.scores import gradient_scores
from jaxsparse.types import Masks, Params, Scores

# If the flow is below this number or above its inverse, single scores may underflow or
# overflow float64 even though the flow itself does not.
MIN_FLOW = 1e-200
# A score of 0 beside one below this number has probably underflowed.
TINY = 1e-250
ROUNDS = 4  # of rescaling all layers by a common factor


def synflow(
    apply: Callable[[Params, Array], Any],
    params: Params,
    masks: Masks,
    shape: tuple[int, ...],
) -> Scores:
    r"""Scores each weight by its share in the synaptic flow from inputs to outputs.

    Let :math:`R` be the sum of the outputs of the network with absolute parameters
    :math:`|m w|`, for an input of ones. The score of a weight is
    :math:`|w| \, \partial R / \partial |m w|`. In a chain of layers without biases, the
    scores of every layer then sum to :math:`R`, and at every hidden neuron the scores
    of incoming weights have the same sum as those of outgoing weights.

    Deep networks overflow float32. The flow is therefore computed in float64, and
    scores are returned in float64, whatever the setting of `jax_enable_x64`. `select`
    and `prune` preserve float64; other code outside `jax.enable_x64(True)` may convert
    it to float32.

    If the flow is below 1e-200 or above 1e200, and is proportional to the weights of
    every layer, layers are rescaled. A chain without biases has this property for any
    depth. All scores are then multiplied by one common factor, which does not change
    their ranking. Where there are skip connections or nonzero biases, rescaling would
    change it; scores that overflow are then refused, and a warning tells of scores that
    underflow.

    Args:
      apply: called as `apply(params, inputs)`, in inference mode; all its outputs are
        summed. It must not convert float64 to a narrower dtype.
      params: parameters of the network.
      masks: masks of the active weights; None where a leaf is not prunable.
      shape: shape of the input, including the axis of examples; one example is enough.

    Returns:
      Scores in float64, 0 or more for networks of monotone layers; None where the mask
      is None.

    Raises:
      ValueError: if a score is infinite or NaN, with rescaling where it applies. Traced
        scores, under `jit` and `vmap`, cannot be checked and are returned.

    Warns:
      UserWarning: if scores of nonzero weights are 0 beside others below 1e-250, as
        where biases give the flow of late layers and early layers hardly add to it.

    Examples:
      >>> params = {"w": jnp.array([[2.0], [-3.0]])}
      >>> mask = {"w": jnp.array([[True], [True]])}
      >>> synflow(lambda params, x: x @ params["w"], params, mask, (1, 2))
      {'w': Array([[2.],
             [3.]], dtype=float64)}

    Deviations:
      Scores beyond float64 are refused where layers cannot be rescaled, as in a
      residual network of 100 blocks whose flow grows 10**4 times in each; the authors'
      code returns infinity or NaN. As in it, the absolute value is taken of all
      parameters, those of biases and normalizations included, in double precision. The
      paper prunes by this score in 100 iterations; one call is one iteration.

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
        is_plain = (total > MIN_FLOW) & (total < 1 / MIN_FLOW)
        # Where the flow is concrete, a Python branch saves compiling the rescaling.
        if not isinstance(is_plain, jax.core.Tracer):
            scores = scores if is_plain else _rescale(flow, sizes, masks, inputs)
        else:
            scores = lax.cond(
                is_plain,
                lambda sizes: scores,
                lambda sizes: _rescale(flow, sizes, masks, inputs),
                sizes,
            )
    _check(scores, masks, params)
    return scores


def _share(
    flow: gradient_scores.Loss, sizes: Params, masks: Masks, inputs: Array
) -> tuple[Float[Array, ""], Scores]:
    """Computes the flow and the score of each weight, as the paper defines them.

    Args:
      flow: called as `flow(params, inputs)`; the sum of the network's outputs.
      sizes: absolute values of all parameters, float64.
      masks: masks of the active weights; None where a leaf is not prunable.
      inputs: input of ones, float64.

    Returns:
      The flow, and the scores with None where the mask is None.
    """
    masked = masks_lib.apply(masks, sizes)
    weights = masks_lib.tree_map(lambda _, leaf: leaf, masks, masked)
    total, slopes = jax.value_and_grad(gradient_scores.restricted(flow, masked))(
        weights, inputs
    )
    return total, masks_lib.tree_map(lambda _, w, s: w * s, masks, sizes, slopes)


def _rescale(
    flow: gradient_scores.Loss, sizes: Params, masks: Masks, inputs: Array
) -> Scores:
    """Computes scores with layers scaled so that the flow is close to 1.

    Args:
      flow: called as `flow(params, inputs)`; the sum of the network's outputs.
      sizes: absolute values of all parameters, float64.
      masks: masks of the active weights; None where a leaf is not prunable.
      inputs: input of ones, float64.

    Returns:
      The scores times one common factor, if the flow is proportional to every layer.
      Otherwise the scores without scaling, because scaling would change their ranking.
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
        # A flow of 0 or infinity shows only in which direction to scale.
        known = jnp.clip(total, MIN_FLOW**1.5, MIN_FLOW**-1.5)
        power = jnp.exp(-jnp.log(known) / depth)
        return jax.tree.map(lambda factor: factor * power, factors)

    factors = lax.fori_loop(0, ROUNDS, correct, factors)
    total, scaled = _share(flow, scale(factors), masks, inputs)
    sums = masks_lib.tree_map(
        lambda mask, score: jnp.sum(jnp.where(mask, score, 0)), masks, scaled
    )
    sums = jnp.stack(jax.tree.leaves(sums))
    # By Euler's theorem, the scores of a layer sum to the flow if the flow is
    # proportional to that layer.
    is_proportional = jnp.all(jnp.abs(sums - total) <= 1e-9 * total)
    plain = _share(flow, sizes, masks, inputs)[1]
    return jax.tree.map(
        lambda new, old: jnp.where(is_proportional, new, old), scaled, plain
    )


def _gain_to_one(mask: Array, size: Array) -> Float[Array, ""]:
    """Returns the factor that makes a layer's outputs about as large as its inputs.

    An approximation: it takes the last axis for the outputs, and assumes that all
    outputs are alike.
    """
    gain = jnp.sum(jnp.where(mask, size, 0)) / size.shape[-1]
    return jnp.where((gain > 0) & (gain < jnp.inf), 1 / gain, 1.0)


def _check(scores: Scores, masks: Masks, params: Params) -> None:
    """Raises an error for concrete scores that are not finite; warns of underflow."""
    leaves = jax.tree.leaves((scores, masks, params))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return
    active, weights = tree.named_leaves(masks), tree.named_leaves(params)
    minimum, underflowed = np.inf, {}
    for name, leaf in tree.named_leaves(scores).items():
        magnitude = np.abs(np.asarray(leaf))
        if not np.all(np.isfinite(magnitude)):
            raise ValueError(
                f"params: expected a flow through {name} below 1e308, got a float64 "
                "overflow; skip connections, biases and activations that are not "
                "linear above 0 prevent rescaling of layers, which would change the "
                "ranking; start from smaller weights, normalize in `apply`, or set "
                "biases to 0"
            )
        minimum = np.min(magnitude, where=magnitude > 0, initial=minimum)
        is_active = np.asarray(active[name]) & (np.asarray(weights[name]) != 0)
        if num_lost := np.count_nonzero(is_active & (magnitude == 0)):
            underflowed[name] = f"{num_lost} of {np.count_nonzero(is_active)}"
    if underflowed and minimum < TINY:
        arguments.warn(
            f"params: expected nonzero scores for nonzero weights, got 0 in "
            f"{underflowed}, while others have {minimum:.1e}: the flow through these "
            "weights is too small for float64 beside that of biases or other paths, so "
            "that they rank equally; start from larger weights, set biases to 0 for "
            "the score, or prune layer by layer"
        )
