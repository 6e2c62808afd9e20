"""SynFlow for LeNet-300-100 on MNIST.

Paper: Tanaka, Kunin, Yamins, Ganguli, Pruning Neural Networks Without Any Data by
Iteratively Conserving Synaptic Flow, 2020, arXiv:2006.05467: pruning at initialization
by the flow of an input of ones, without data, in 100 steps with an exponential
schedule, over all layers together. Training is that of `random_mnist`.

Command: python experiments/train.py --config=configs/synflow_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("synflow_mnist", preset)
    c.sparse.pai_score = "synflow"
    c.sparse.score_iterations = 100
    return c
