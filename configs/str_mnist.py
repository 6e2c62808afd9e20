"""Soft threshold reparameterization (STR) of LeNet-300-100 on MNIST.

Paper: Kusupati, Ramanujan, Somani, Wortsman, Jain, Kakade, Farhadi, Soft Threshold
Weight Reparameterization for Learnable Sparsity, 2020, arXiv:2002.03231. Each layer has
a learned threshold, which weight decay raises. Training is that of `random_mnist`.

Deviations: network, data and training are not from the paper. The initial thresholds
are chosen so that they rise to the size of the weights within training; the sparsity
follows from them and from the weight decay.

Command: python experiments/train.py --config=configs/str_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("str_mnist", preset)
    c.sparse.method = "str"
    c.sparse.sparsity = 0.9  # the default: training decides
    c.sparse.threshold_logit = -40.0 if not preset else -4.0
    return c
