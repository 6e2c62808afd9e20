"""Linear mode connectivity: what lies between two solutions.

`along_segment` evaluates a network at points of the straight line through two
solutions, `barrier` says how far it rises there, and `excess` the same point by point.
Training the two solutions is up to the caller, and so are their masks: a weight that
is zero at both ends is zero in between.

    found = connectivity.along_segment(
        evaluate, ticket, pruned, examples=(images, labels), batch_size=1000
    )
    connectivity.barrier(found.error, found.alphas)
"""

from jaxsparse.analysis.connectivity.barriers import barrier, excess
from jaxsparse.analysis.connectivity.criteria import (
    MATCHING_BELOW,
    STABLE_BELOW,
    ByClass,
    Stability,
    by_class,
    classify_stability,
    connected_fraction,
    example_barrier,
    instability,
    max_increase,
)
from jaxsparse.analysis.connectivity.interpolation import (
    EVCI_ALPHAS,
    UNIT_ALPHAS,
    interpolate,
)
from jaxsparse.analysis.connectivity.linear_path import (
    Interpolated,
    LinearPath,
    ReEstimated,
    along_path,
)

__all__ = (
    "EVCI_ALPHAS",
    "MATCHING_BELOW",
    "STABLE_BELOW",
    "UNIT_ALPHAS",
    "ByClass",
    "Interpolated",
    "ReEstimated",
    "LinearPath",
    "Stability",
    "along_path",
    "barrier",
    "by_class",
    "connected_fraction",
    "example_barrier",
    "excess",
    "instability",
    "interpolate",
    "classify_stability",
    "max_increase",
)
