"""Select the weights to keep: scores and counts in, masks out, with exact counts.

`top_k_global` applies one threshold to all layers, `top_k_per_layer` one threshold to
each layer. Both keep exactly the requested number of weights, even if scores are equal.
The scores come from `scores`, the counts from `distributions` and `durations`.

A `Structure` describes structured sparsity, in which weights are kept or removed in
units: `n_of_m`, `blocks`, `channels`, `fan_in` and `diagonals`. `round_counts` rounds
counts to those that a structure can keep, and `bind` attaches to a structure which axes
of each leaf are inputs and outputs. `coupled_channels` removes channels from all layers
that share them, also through shortcuts.
"""

from jaxsparse.select.coupled import coupled_channels
from jaxsparse.select.floors import floors, top_k_global_at_least
from jaxsparse.select.inputs import AxisName
from jaxsparse.select.ranking import (
    Tie,
    TiedScoresWarning,
    all_finite,
    count_ties,
    warn_of_ties,
)
from jaxsparse.select.rounding import (
    count_active,
    count_at,
    round_counts,
    round_totals,
    to_array,
)
from jaxsparse.select.structures import (
    Structure,
    bind,
    blocks,
    channels,
    diagonals,
    fan_in,
    n_of_m,
)
from jaxsparse.select.thresholds import Ties
from jaxsparse.select.units import UnitView, unit_view
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
    "count_active",
    "count_at",
    "count_ties",
    "coupled_channels",
    "diagonals",
    "fan_in",
    "round_counts",
    "round_totals",
    "floors",
    "to_array",
    "top_k_global",
    "top_k_global_at_least",
    "unit_view",
    "n_of_m",
    "top_k_per_layer",
    "warn_of_ties",
)
