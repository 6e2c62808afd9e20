"""Iterative magnitude pruning from initialization, in LeNet-300-100 on MNIST.

Paper: Maene, Li, Moens, Towards Understanding Iterative Magnitude Pruning: Why Lottery
Tickets Win, 2021, arXiv:2106.06955, table 1: Adam with rate 1.2e-3, Kaiming uniform
weights, no weight decay, 25 epochs a round, 25 rounds of 20 % of all weights, pruned
globally, reset to initialization, 3 seeds; reinitialized controls; two children of
rounds 5, 10 and 15. Of the levers that make training stable, batches are the main one:
`--config.data.batch_size=1024` changes nothing else, so that there are fewer updates.

Deviations: the paper does not say how the output layer is pruned, what biases begin
with, or whether rounds share the order of examples; here all layers are pruned alike,
biases begin as zeros, and each round has an order of its own, as those that share one
share the noise of SGD (`--config.data.order=same` for that).

Command: python experiments/train.py --config=configs/stable_imp_mnist.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (2 rounds, 2 epochs of 2,000)."""
    c = config.start("stable_imp_mnist", variant)
    c.replicates = 3
    c.data.name = "mnist"
    c.data.batch_size = 60
    c.data.order = "fresh"
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
    if variant == "quick":
        c.replicates = 2
        c.data.train_examples = 2000
        c.data.test_examples = 1000
        c.training.duration = "2ep"
        c.lottery.levels = 2
        c.instability.levels = (0, 2)
        c.instability.points = 5
        c.instability.examples = 1000
    return c
