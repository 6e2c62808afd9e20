"""Gem-Miner of LeNet-300-100 on MNIST.

Paper: Sreenivasan, Sohn, Yang, Grinde, Nagle, Wang, Xing, Lee, Papailiopoulos, Rare
Gems: Finding Lottery Tickets at Initialization, 2022, arXiv:2202.12002. Scores of the
initial weights are trained, and the lowest of them removed in 19 equal fractions until
98 % of the weights are gone, with the authors' learning rate and penalty. The ticket is
then trained by `random_mnist` with
`--config.warm_start.run=RUN --config.warm_start.masks=train/last` and the same seeds.

Deviations: network, data and length are not from the paper. Weights are Glorot uniform,
not signed constants.

Command: python experiments/train.py --config=configs/gem_miner_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("gem_miner_mnist", preset)
    c.sparse.method = "gem_miner"
    c.sparse.update_every = "5%"
    c.sparse.end_step = "95%"
    c.schedule.learning_rate = 0.1
    c.optimizer.weight_decay = 0.0
    c.optimizer.weight_decay_mask = "all"
    return c
