"""Edge-popup of LeNet-300-100 on MNIST.

Paper: Ramanujan, Wortsman, Kembhavi, Farhadi, Rastegari, What's Hidden in a Randomly
Weighted Neural Network?, 2020, arXiv:1911.13299. Half of the initial weights of each
layer are used, chosen by trained scores; the learning rate is the authors' 0.1.

Deviations: training is that of `random_mnist` otherwise. Weights are Glorot uniform;
the paper's are best as signed constants. Biases keep their initial value of zero.

Command: python experiments/train.py --config=configs/edge_popup_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("edge_popup_mnist", preset)
    c.sparse.method = "edge_popup"
    c.sparse.sparsity = 0.5
    c.schedule.learning_rate = 0.1
    return c
