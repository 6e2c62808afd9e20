"""Proximal L1 of LeNet-300-100 on MNIST.

Paper: Parikh, Boyd, Proximal Algorithms, 2014: each step of SGD is followed by the
soft threshold that belongs to an L1 penalty of the kernels. Training is that of
`random_mnist`, without weight decay.

Deviations: the penalty is chosen for this network; the sparsity follows from it. The
threshold is that of SGD without momentum.

Command: python experiments/train.py --config=configs/proximal_l1_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("proximal_l1_mnist", preset)
    c.sparse.method = "proximal_l1"
    c.sparse.sparsity = 0.9  # the default: training decides
    c.sparse.l1_penalty = 1e-4
    c.optimizer.weight_decay = 0.0
    c.optimizer.weight_decay_mask = "all"
    return c
