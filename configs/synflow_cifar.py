"""SynFlow for ResNet-20 on CIFAR-10.

Paper: Tanaka, Kunin, Yamins, Ganguli, Pruning Neural Networks Without Any Data by
Iteratively Conserving Synaptic Flow, 2020, arXiv:2006.05467: pruning at initialization
by the flow of an input of ones, without data, in 100 steps with an exponential
schedule, over all layers together. Training is that of `random_cifar`.

Command: python experiments/train.py --config=configs/synflow_cifar.py
"""

from ml_collections import ConfigDict

from configs import random_cifar


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (1 seed, 300 steps)."""
    c = random_cifar.recipe("synflow_cifar", preset)
    c.sparse.pai_score = "synflow"
    c.sparse.score_iterations = 100
    return c
