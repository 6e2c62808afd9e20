"""Gradual magnitude pruning in LeNet-300-100 on MNIST.

Zhu, Gupta, 2017, arXiv:1710.01878, with the schedule of Evci et al. 2020,
arXiv:2010.03533: the cubic one, layer by layer, every 100 updates from 3,000 to 7,000
of 11,719 (the same parts of a shorter run); trained as `random_mnist`.

Command: python experiments/train.py --config=configs/gmp_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("gmp_mnist", variant)
    c.sparse.method = "gmp"
    c.sparse.begin_step = "25.6%"
    c.sparse.end_step = "59.73%"
    c.sparse.update_every = "100step" if not variant else "20step"
    return c
