"""Connectivity: which active weights connect inputs to outputs.

An active weight has no effect if no path from an input reaches its neuron, or no path
leads from there to an output. The effective sparsity counts such weights as removed.
Paths are found for any forward function from its JAX trace, so layers, strides or
shortcuts need no declaration.

    live = connectivity.live(apply, params, masks, jnp.ones((1, 28, 28, 1)))
    connectivity.effective_sparsity(masks, live)

The masks from `live` can replace the original masks in training. `reached` checks only
the paths from inputs, `used` only the paths to outputs. This module does not decide
which weights to prune; `scores` and `select` do.
"""

from jaxsparse.connectivity.live_weights import (
    LayerPaths,
    by_layer,
    effective_sparsity,
    first_to_last,
    live,
    reached,
    used,
)

__all__ = (
    "LayerPaths",
    "by_layer",
    "effective_sparsity",
    "first_to_last",
    "live",
    "reached",
    "used",
)
