"""SynFlow in LeNet-300-100 on MNIST.

Tanaka, Kunin, Yamins, Ganguli, 2020, arXiv:2006.05467: pruned at initialization by the
flow of ones, without data, in 100 exponential steps over all layers together;
trained as `random_mnist`.

Command: python experiments/train.py --config=configs/synflow_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("synflow_mnist", variant)
    c.sparse.pai_score = "synflow"
    c.sparse.score_iterations = 100
    return c
