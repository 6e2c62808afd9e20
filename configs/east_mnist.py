"""Cyclic sparsity of EAST for LeNet-300-100 on MNIST.

Paper: Li, Durrant, Markovic, Huang, Kundu, Chen, Yin, Leontidis, Pushing the Limits of
Sparsity: A Bag of Tricks for Extreme Pruning, 2024, arXiv:2411.13545: in the first
40 % of training the density rises twice to three times that of the end and falls back,
and then RigL replaces weights. Cycles, drop fraction and layers (Erdos-Renyi-Kernel)
are those of the authors' code. Training is that of `random_mnist`.

Deviations: network, data, length and sparsity are not from the paper; its dynamic ReLUs
and shared weights are left out. See also `transforms.east`.

Command: python experiments/train.py --config=configs/east_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("east_mnist", preset)
    c.sparse.method = "east"
    c.sparse.update_every = "100step" if preset != "quick" else "10step"
    c.sparse.end_step = "75%"
    c.sparse.cycle_part = 0.53  # of three quarters: 40 % of training
    return c
