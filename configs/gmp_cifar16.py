"""Gradual magnitude pruning (GMP) of ResNet-8 on CIFAR-10 at 16 by 16 pixels.

Paper: Zhu, Gupta, To Prune, or Not to Prune, 2017, arXiv:1710.01878, in the small
setting of `dense_cifar16.py`: from one eighth to three quarters of training, the
sparsity increases to 95 % by the cubic schedule, with Erdos-Renyi-Kernel layers, every
20 steps.

Deviations: network, data, layers and length are not from the paper.

Command: python experiments/train.py --config=configs/gmp_cifar16.py
"""

from ml_collections import ConfigDict

from configs import rigl_cifar16


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 30 steps)."""
    c = rigl_cifar16.recipe("gmp_cifar16", preset)
    c.sparse.method = "gmp"
    c.sparse.begin_step = "12.5%"
    c.sparse.end_step = "75%"
    return c
