"""Iterative magnitude pruning from initialization: LeNet-300-100 on MNIST.

Paper: Maene, Li, Moens, Towards Understanding Iterative Magnitude Pruning: Why Lottery
Tickets Win, 2021, arXiv:2106.06955, table 1: Adam with learning rate 1.2e-3, Kaiming
uniform weights, no weight decay, 25 epochs per level, 25 levels that prune 20 % of all
weights globally, weights reset to initialization, 3 seeds, reinitialized controls, two
copies of levels 5, 10 and 15. Of the settings that make training stable, the batch size
is the main one: `--config.data.batch_size=1024` changes nothing else, so that there are
fewer steps.

Deviations: the paper does not specify how the output layer is pruned, the initial
biases, or whether levels have the same order of examples. Here all layers are pruned
alike, biases start at zero, and each level has its own order, because levels with the
same order share their SGD noise (`--config.data.reshuffle_each_level=false` repeats
it).

Command: python experiments/train.py --config=configs/stable_imp_mnist.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 levels, 2 epochs of 2,000)."""
    c = config.start("stable_imp_mnist", preset)
    c.replicates = 3
    c.data.name = "mnist"
    c.data.batch_size = 60
    c.data.reshuffle_each_level = True
    c.model.name = "lenet_300_100"
    c.init.kernel = "kaiming_uniform"
    c.optimizer.name = "adam"
    c.schedule.learning_rate = 1.2e-3
    c.training.duration = "25ep"
    c.lottery.levels = 25
    c.lottery.controls = ("reinitialized",)
    c.instability.copies = 2
    c.instability.levels = (0, 5, 10, 15)
    c.instability.compare_levels = True
    if preset == "quick":
        c.replicates = 2
        c.data.train_examples = 2000
        c.data.test_examples = 1000
        c.training.duration = "2ep"
        c.lottery.levels = 2
        c.instability.levels = (0, 2)
        c.instability.points = 5
        c.instability.examples = 1000
    return c
