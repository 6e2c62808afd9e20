"""Linear mode connectivity: loss and error on the linear path between two solutions.

`along_path` evaluates a network at points of the straight line through two solutions.
`barrier` computes the highest rise on it, and `excess` the rise at each point. The
caller trains the two solutions and applies their masks: a weight that is zero in both
solutions is zero everywhere between them.

    found = connectivity.along_path(
        evaluate, ticket, pruned, examples=(images, labels), batch_size=1000
    )
    connectivity.barrier(found.error, found.alphas)
"""

from jaxsparse.analysis.mode_connectivity.barriers import barrier, excess
from jaxsparse.analysis.mode_connectivity.criteria import (
    MATCHING_BELOW,
    STABLE_BELOW,
    Stability,
    classify_stability,
    instability,
    max_increase,
)
from jaxsparse.analysis.mode_connectivity.example_criteria import (
    ByClass,
    by_class,
    connected_fraction,
    example_barrier,
)
from jaxsparse.analysis.mode_connectivity.interpolation import (
    EVCI_ALPHAS,
    UNIT_ALPHAS,
    interpolate,
)
from jaxsparse.analysis.mode_connectivity.linear_path import (
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
