"""Gradual magnitude pruning (GMP) of LeNet-300-100 on MNIST.

Paper: Zhu, Gupta, To Prune, or Not to Prune, 2017, arXiv:1710.01878, with the schedule
of Evci, Ioannou, Keskin, Dauphin, Gradient Flow in Sparse Neural Networks and How
Lottery Tickets Win, 2020, arXiv:2010.03533: cubic, layer by layer, every 100 steps from
3,000 to 7,000 of 11,719 (the same fractions of a shorter run). Training is that of
`random_mnist`.

Command: python experiments/train.py --config=configs/gmp_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("gmp_mnist", preset)
    c.sparse.method = "gmp"
    c.sparse.begin_step = "25.6%"
    c.sparse.end_step = "59.73%"
    c.sparse.update_every = "100step" if not preset else "20step"
    return c
