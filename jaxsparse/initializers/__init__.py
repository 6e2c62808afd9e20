"""Initializers: initial parameters of dense networks and of networks with given masks.

`initialize` draws all parameters of a dense network. `redraw` draws new weights inside
masks, by a sparse initializer from `per_neuron`, `rescaled`, `layer_scaled` or
`masked`; `sparsity_aware` combines it with `per_neuron`. `exact_orthogonal` makes masks
and weights together. `metainit` rescales given parameters. `supar` computes scales of
weights and learning rates that suit width and density.

    params = initializers.initialize(template, key=first)
    ticket = prune.prune(params, 0.95)
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
    MetaInitOptions,
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
from jaxsparse.initializers.supar import SuparFactors, scale_updates, supar

__all__ = (
    "BIASES",
    "DISTRIBUTIONS",
    "FANS",
    "KERNELS",
    "NORM_SCALES",
    "SparseInitializer",
    "SuparFactors",
    "exact_orthogonal",
    "fan_in",
    "gaussian_batches",
    "gradient_quotient",
    "initialize",
    "layer_scaled",
    "masked",
    "metainit",
    "MetaInitOptions",
    "per_neuron",
    "redraw",
    "rescaled",
    "scale_updates",
    "sparse_fans",
    "sparse_orthogonal",
    "sparsity_aware",
    "supar",
)
