"""Selection: scores and counts in, masks out, exactly.

`globally` sets one threshold over all layers, `per_layer` one for each. Both keep
exactly as many weights as they are asked for, ties included. What a weight is worth
comes from `scores`, how many to keep from `distributions` and `schedules`.

A `Structure` makes weights stand or fall together: `in_groups`, `blocks`, `channels`
and `fan_in`. `fit` rounds counts to those that a structure can meet, `bind` tells a
structure which axes of a tree's leaves are inputs and outputs.
"""

from jaxsparse.select.bisection import Ties
from jaxsparse.select.floors import floors, top_k_global_at_least
from jaxsparse.select.inputs import AxisName
from jaxsparse.select.ranking import (
    Tie,
    TiedScoresWarning,
    all_finite,
    count_ties,
    warn_of_ties,
)
from jaxsparse.select.rounding import round_counts
from jaxsparse.select.structures import (
    Structure,
    UnitView,
    bind,
    blocks,
    channels,
    fan_in,
    n_of_m,
    unit_view,
)
from jaxsparse.select.unstructured import top_k_global, top_k_per_layer

__all__ = (
    "AxisName",
    "UnitView",
    "Structure",
    "Tie",
    "TiedScoresWarning",
    "Ties",
    "all_finite",
    "bind",
    "blocks",
    "channels",
    "count_ties",
    "fan_in",
    "round_counts",
    "floors",
    "top_k_global",
    "top_k_global_at_least",
    "unit_view",
    "n_of_m",
    "top_k_per_layer",
    "warn_of_ties",
)
