"""SynFlow in ResNet-20 on CIFAR-10.

Tanaka, Kunin, Yamins, Ganguli, 2020, arXiv:2006.05467: pruned at initialization by the
flow of ones, without data, in 100 exponential steps over all layers together;
trained as `random_cifar`.

Command: python experiments/train.py --config=configs/synflow_cifar.py
"""

from ml_collections import ConfigDict

from configs import random_cifar


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (1 seed, 300 steps)."""
    c = random_cifar.recipe("synflow_cifar", variant)
    c.sparse.pai_score = "synflow"
    c.sparse.score_iterations = 100
    return c
