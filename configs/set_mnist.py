"""Sparse evolutionary training in LeNet-300-100 on MNIST.

Mocanu et al., 2018, arXiv:1707.04780: layers by Erdos-Renyi, 30 % of the weights
nearest to zero, sign by sign, replaced by random ones; trained as `random_mnist`. Masks
change every 500 updates, as in Evci et al. 2020, arXiv:2010.03533 (an epoch has 469).

Command: python experiments/train.py --config=configs/set_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("set_mnist", variant)
    c.sparse.method = "set"
    c.sparse.update_every = "500step" if not variant else "50step"
    return c
