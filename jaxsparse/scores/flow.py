"""Scores from the flow through a network, without data: SynFlow."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxsparse import masks as masks_lib
from jaxsparse.scores import saliency
from jaxsparse.types import Masks, Params, Scores


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
    float64, whatever the setting of `jax_enable_x64`. Select from it under
    `jax.enable_x64(True)`, or by `oneshot`, which does: elsewhere JAX makes float32
    of it.

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
        masked = masks_lib.apply(masks, sizes)
        weights = masks_lib.tree_map(lambda _, leaf: leaf, masks, masked)
        slope = jax.grad(saliency.restricted(flow, masked))
        slopes = slope(weights, jnp.ones(shape, jnp.float64))
        scores = masks_lib.tree_map(lambda _, w, s: w * s, masks, sizes, slopes)
    _check(scores)
    return scores


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
