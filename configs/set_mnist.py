"""Sparse evolutionary training (SET) of LeNet-300-100 on MNIST.

Paper: Mocanu et al., Scalable Training of Artificial Neural Networks with Adaptive
Sparse Connectivity Inspired by Network Science, 2018, arXiv:1707.04780: Erdos-Renyi
layers; the 30 % of the weights nearest to zero, separately for each sign, are replaced
by random ones. Masks are updated every 500 steps, as in Evci et al., 2020,
arXiv:2010.03533 (an epoch has 469 steps). Training is that of `random_mnist`.

Command: python experiments/train.py --config=configs/set_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("set_mnist", preset)
    c.sparse.method = "set"
    c.sparse.update_every = "500step" if not preset else "50step"
    return c
