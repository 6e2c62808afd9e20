"""Scores: the importance of each weight, where higher is better.

Scores are a tree with the nesting of the masks, and None where the mask is None.
`select` keeps the weights with the highest scores. Which weights are candidates is a
separate argument there, so the scores of weights outside the mask may be anything.

`magnitude` and `random` depend on the weights alone. `snip`, `grasp`, `synflow` and
`ntk_sap` differentiate a function of the network, which also works before training.
`prune.prune` and `prune.prune_iteratively` call a score with parameters and masks, so
bind the other arguments first:

    score = functools.partial(scores.snip, loss, batches=batches)
    masks = prune.prune(params, 0.95, score=score)

    score = lambda params, masks: scores.random(masks, key=key)
    masks = prune.prune(params, 0.95, score=score)

`snip`, `grasp` and `synflow` evaluate the gradient at the masked weights and multiply
it with the unmasked weights. Outside the mask, the score therefore estimates how
important a weight would be if it were grown back.
"""

from jaxsparse.scores.gradient_scores import grasp, snip
from jaxsparse.scores.magnitude import magnitude, random
from jaxsparse.scores.ntk_sap import ntk_sap
from jaxsparse.scores.synflow import synflow

__all__ = ("grasp", "magnitude", "ntk_sap", "random", "snip", "synflow")
