"""Gradual magnitude pruning (GMP) of ResNet-20 on CIFAR-10.

Paper: Zhu, Gupta, To Prune, or Not to Prune, 2017, arXiv:1710.01878: the cubic
schedule, one threshold for all layers. Training is that of `random_cifar`.

Deviations: the paper has no such network. Masks are updated every 100 steps from one
eighth to three quarters of training, with one threshold for all layers.

Command: python experiments/train.py --config=configs/gmp_cifar.py
"""

from ml_collections import ConfigDict

from configs import random_cifar


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (1 seed, 300 steps)."""
    c = random_cifar.recipe("gmp_cifar", preset)
    c.sparse.method = "gmp"
    c.sparse.distribution = "global"
    c.sparse.begin_step = "12.5%"
    c.sparse.end_step = "75%"
    c.sparse.update_every = "100step" if not preset else "20step"
    return c
