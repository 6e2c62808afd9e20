"""Pruning of any pytree of parameters to a given sparsity, in one call.

The parts are those of all other methods: `scores` computes a score for each weight,
`distributions` the number of weights that each layer keeps, and `select` the masks.
`prune` computes the scores once, `prune_iteratively` again before each of many pruning
iterations. `wanda`, `obs` and `alps` prune trained networks layer by layer, with the
inputs of the layers on a batch of examples; the last two also update weights.
`wanda_scores` and `phew_scores` are scores that depend on the layers, too. None of them
trains the network.
"""

from jaxsparse.layer_options import LayerOptions
from jaxsparse.prune.alps import alps
from jaxsparse.prune.at_once import prune
from jaxsparse.prune.iterative import SCHEDULES, prune_iteratively
from jaxsparse.prune.layerwise import Pruned
from jaxsparse.prune.obs import obs
from jaxsparse.prune.phew import phew_scores
from jaxsparse.prune.wanda import wanda, wanda_scores

__all__ = (
    "SCHEDULES",
    "LayerOptions",
    "Pruned",
    "alps",
    "obs",
    "phew_scores",
    "prune",
    "prune_iteratively",
    "wanda",
    "wanda_scores",
)
