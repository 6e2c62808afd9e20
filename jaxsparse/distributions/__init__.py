"""Distributions: division of one sparsity of the network into a count for each layer.

All functions run once, on the host, in exact arithmetic, because in float32 or float64
the product of a size and a fraction is off by some weights for large layers. `select`
selects weights by the counts, and `transforms` defines how counts change over time.

The inputs, outputs and kernel positions of a layer are defined by `fan_axes`. The named
distributions keep at least one weight in every layer that is not empty. Where a layer's
share is below one weight, the other layers get correspondingly less, so that the total
stays exact.
"""

from jaxsparse.distributions.by_pattern import by_glob
from jaxsparse.distributions.counts import count_kept
from jaxsparse.distributions.division import NAMES, Distribute, divide, make_divider
from jaxsparse.distributions.named import (
    balanced,
    erdos_renyi,
    erdos_renyi_kernel,
    uniform,
)

__all__ = (
    "NAMES",
    "Distribute",
    "balanced",
    "by_glob",
    "count_kept",
    "divide",
    "erdos_renyi",
    "erdos_renyi_kernel",
    "make_divider",
    "uniform",
)
