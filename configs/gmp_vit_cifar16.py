"""Gradual magnitude pruning (GMP) of a small vision transformer on CIFAR-10.

Paper: Zhu, Gupta, To Prune, or Not to Prune, 2017, arXiv:1710.01878, in the small
setting of `dense_vit_cifar16.py`: from one eighth to three quarters of training, the
sparsity of each layer increases to 80 % by the cubic schedule, every 50 steps.

Deviations: network, data and length are not from the paper.

Command: python experiments/train.py --config=configs/gmp_vit_cifar16.py
"""

from ml_collections import ConfigDict

from configs import dense_vit_cifar16


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 30 steps, 1 block)."""
    c = recipe("gmp_vit_cifar16", preset)
    c.sparse.method = "gmp"
    c.sparse.begin_step = "12.5%"
    return c


def recipe(name: str, preset: str) -> ConfigDict:
    """Returns the settings that `*_vit_cifar16` recipes of changing masks share.

    Args:
      name: name of the recipe.
      preset: preset of the recipe; "" for none.
    """
    c = dense_vit_cifar16.recipe(name, preset)
    c.sparse.prunable = dense_vit_cifar16.PRUNED
    c.sparse.sparsity = 0.8
    c.sparse.end_step = "75%"
    c.sparse.update_every = "50step" if preset != "quick" else "5step"
    return c
