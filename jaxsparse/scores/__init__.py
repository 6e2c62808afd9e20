"""Scores: what each weight is worth; more is better.

A score is a tree with None where the mask is None. `select` keeps the weights that
score highest and is told separately which weights exist, so the scores of weights
outside the mask may be anything.

`magnitude` and `random` look at the weights alone. `snip`, `grasp` and `synflow` ask
the network how it would change, which also works before training. All of them fit
`oneshot.prune` and `oneshot.prune_iteratively`, once what else they take is bound:

    score = functools.partial(scores.snip, loss, batches=batches)
    ticket = oneshot.prune(params, 0.95, score=score)

The gradient of these three is taken at the masked weights, and the score multiplies it
with the weights as they came. So the score outside the mask says what a weight would
be worth if it returned.
"""

from jaxsparse.scores.gradient_scores import grasp, snip
from jaxsparse.scores.magnitude import magnitude, random
from jaxsparse.scores.synflow import synflow

__all__ = ("grasp", "magnitude", "random", "snip", "synflow")
