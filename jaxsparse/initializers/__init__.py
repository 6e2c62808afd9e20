"""Initializers: first values of parameters, dense or for given masks.

`initialize` draws a dense network by names and shapes. `redraw` draws the weights
inside masks anew, by a rule that `per_neuron`, `rescaled`, `layer_scaled` or `masked`
makes; `sparsity_aware` is short for the first of these. `exact_orthogonal` makes masks
and weights at once. `metainit` scales what others drew.

    params = initializers.initialize(like, key=first)
    ticket = oneshot.prune(params, 0.95)
    params = initializers.sparsity_aware(params, ticket, scale=2.0, key=second)
"""

from jaxsparse.initializers.fans import FANS, sparse_fans
from jaxsparse.initializers.kernels import (
    BIASES,
    KERNELS,
    NORM_SCALES,
    fan_in,
    initialize,
)
from jaxsparse.initializers.metainit import (
    gaussian_batches,
    gradient_quotient,
    metainit,
)
from jaxsparse.initializers.orthogonal import exact_orthogonal, sparse_orthogonal
from jaxsparse.initializers.reinitialize import redraw, sparsity_aware
from jaxsparse.initializers.sparse_kernels import (
    DISTRIBUTIONS,
    SparseInitializer,
    layer_scaled,
    masked,
    per_neuron,
    rescaled,
)

__all__ = (
    "BIASES",
    "DISTRIBUTIONS",
    "FANS",
    "KERNELS",
    "NORM_SCALES",
    "SparseInitializer",
    "exact_orthogonal",
    "fan_in",
    "gaussian_batches",
    "gradient_quotient",
    "initialize",
    "layer_scaled",
    "masked",
    "metainit",
    "per_neuron",
    "redraw",
    "rescaled",
    "sparse_fans",
    "sparse_orthogonal",
    "sparsity_aware",
)
