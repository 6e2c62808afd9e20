"""Paths: which kept weights connect inputs to outputs.

A weight whose neuron no input reaches, or from which no output is reached, is kept in
vain. The effective sparsity counts such weights as removed. It is found for any
forward function, as JAX traces it: there is nothing to declare about layers,
strides or shortcuts.

    alive = paths.live(apply, params, masks, jnp.ones((1, 28, 28, 1)))
    paths.effective_sparsity(masks, alive)

`live` is what to train on in place of the masks; `reached` and `used` are its two
halves. Nothing here decides what to prune; `scores` and `select` do.
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
