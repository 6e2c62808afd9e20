"""Sparse evolutionary training (SET) of ResNet-20 on CIFAR-10.

Paper: Mocanu et al., Scalable Training of Artificial Neural Networks with Adaptive
Sparse Connectivity Inspired by Network Science, 2018, arXiv:1707.04780: Erdos-Renyi
layers; after each epoch, the 30 % of the weights nearest to zero, separately for each
sign, are replaced by random ones. Training is that of `random_cifar`.

Command: python experiments/train.py --config=configs/set_cifar.py
"""

from ml_collections import ConfigDict

from configs import random_cifar


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (1 seed, 300 steps)."""
    c = random_cifar.recipe("set_cifar", preset)
    c.sparse.method = "set"
    c.sparse.update_every = "1ep" if not preset else "50step"
    return c
