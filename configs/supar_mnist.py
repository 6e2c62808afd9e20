"""SuPar with random static masks for LeNet-300-100 on MNIST.

Paper: Dey, Bergsma, Hestness, Sparse maximal update parameterization: A holistic
approach to sparse training dynamics, 2024, arXiv:2405.15743. With masks of density d,
the initial weights of a layer are divided by the square root of d, and its learning
rates of Adam by d. According to the paper, the learning rate that suits the dense
network can then be kept at any sparsity (not measured here): compare
`--config.sparse.sparsity` from 0 to 0.98 with
`--config.optimizer.scale_by_density=false --config.init.sparse_init=None` at several
`--config.schedule.learning_rate`. Masks and length of training are those of
`random_mnist`.

Deviations: network, data, masks, schedule and learning rate are not from the paper,
which trains language models. The first and the last layer are sparse too. The L2
penalty of `random_mnist` goes through Adam. Widths are not scaled: see
`initializers.supar`.

Command: python experiments/train.py --config=configs/supar_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("supar_mnist", preset)
    c.optimizer.name = "adam"
    c.optimizer.momentum = 0.0
    c.optimizer.scale_by_density = True
    c.schedule.learning_rate = 0.001
    c.init.sparse_init = "layer"
    return c
