"""PHEW for LeNet-300-100 on MNIST.

Paper: Patil, Dovrolis, PHEW: Constructing Sparse Networks that Learn Fast and
Generalize Well Without Training Data, 2021, arXiv:2010.11354: pruning at initialization
to the weights on random walks that prefer large weights. Training is that of
`random_mnist`.

Deviations: network, data and length are not from the paper. See also
`prune.phew_scores`.

Command: python experiments/train.py --config=configs/phew_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("phew_mnist", preset)
    c.sparse.pai_score = "phew"
    return c
