"""Selection: scores and counts in, masks out, exactly.

`globally` sets one threshold over all layers, `per_layer` one for each. Both keep
exactly as many weights as they are asked for, ties included. What a weight is worth
comes from `scores`, how many to keep from `distributions` and `schedules`.

A `Structure` makes weights stand or fall together: `in_groups`, `blocks`, `channels`
and `fan_in`. `fit` rounds counts to those that a structure can meet, `bind` tells a
structure which axes of a tree's leaves are inputs and outputs.
"""

from jaxsparse.select.bisection import Ties
from jaxsparse.select.counts import fit, look_up
from jaxsparse.select.floors import floors, globally_at_least
from jaxsparse.select.layers import AxisName
from jaxsparse.select.ranking import (
    Tie,
    TiedScoresWarning,
    all_finite,
    count_ties,
    warn_of_ties,
)
from jaxsparse.select.structures import (
    Grid,
    Structure,
    bind,
    blocks,
    channels,
    fan_in,
    grid,
    in_groups,
)
from jaxsparse.select.unstructured import globally, per_layer

__all__ = (
    "AxisName",
    "Grid",
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
    "fit",
    "floors",
    "globally",
    "globally_at_least",
    "grid",
    "in_groups",
    "look_up",
    "per_layer",
    "warn_of_ties",
)
