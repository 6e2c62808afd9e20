"""Continuous sparsification of LeNet-300-100 on MNIST.

Paper: Savarese, Silva, Maire, Winning the Lottery with Continuous Sparsification,
2020, arXiv:1912.04427. Soft masks of all weights are trained and hardened until the end
of training, with the penalty, the initial masks and the temperature of the authors'
code. Training is that of `random_mnist`.

Deviations: network, data and training are not from the paper; there is one round.
Weight decay acts on the masks too. The sparsity follows from the penalty and the
initial masks.

Command: python experiments/train.py --config=configs/continuous_sparsification_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("continuous_sparsification_mnist", preset)
    c.sparse.method = "continuous_sparsification"
    c.sparse.sparsity = 0.9  # the default: training decides
    c.sparse.end_step = "100%"
    return c
