"""Gradual magnitude pruning in ResNet-20 on CIFAR-10.

Zhu, Gupta, 2017, arXiv:1710.01878: the cubic schedule, one threshold over all layers;
trained as `random_cifar`. Ours to choose, as the paper has no such network: pruned
every 100 updates from an eighth to three quarters of training, globally.

Command: python experiments/train.py --config=configs/gmp_cifar.py
"""

from ml_collections import ConfigDict

from configs import random_cifar


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (1 seed, 300 steps)."""
    c = random_cifar.recipe("gmp_cifar", variant)
    c.sparse.method = "gmp"
    c.sparse.distribution = "global"
    c.sparse.begin_step = "12.5%"
    c.sparse.end_step = "75%"
    c.sparse.update_every = "100step" if not variant else "20step"
    return c
