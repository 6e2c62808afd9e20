"""Instability analysis of LeNet-300-100 on MNIST.

Paper: Frankle, Dziugaite, Roy, Carbin, Linear Mode Connectivity and the Lottery Ticket
Hypothesis, 2020, arXiv:1912.05671: 3 initializations, 3 pairs of copies of each.

Three copies of states at several steps of dense training, and of tickets at several
levels, are trained to the end, each with its own order of examples. For each pair of
copies are recorded: error and loss at 30 points of the linear interpolation, the
instability, the distance, and the examples that they classify differently.

Each level has its own order of examples, because levels with the same order would be
similar for this reason alone.

Deviations: Adam with learning rate 1.2e-3, batches of 60 and 24,000 steps are from
memory and not verified. Initial weights are Kaiming normal, and 20 % of the remaining
weights are pruned at each level, globally except for the output layer, as in open_lth.

Command: python experiments/train.py --config=configs/stability_mnist.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (1 level, 120 steps)."""
    c = config.start("stability_mnist", preset)
    c.replicates = 3
    c.data.name = "mnist"
    c.data.batch_size = 60
    c.data.reshuffle_each_level = True
    c.model.name = "lenet_300_100"
    c.init.bias = "torch_default"
    c.optimizer.name = "adam"
    c.schedule.learning_rate = 1.2e-3
    c.training.duration = "24000step"
    c.evaluation.every = "1000step"
    c.lottery.levels = 15
    c.lottery.exclude = ("head/kernel",)
    c.instability.copies = 3
    c.instability.start_steps = ("0step", "100step", "500step", "2000step")
    c.instability.levels = (0, 5, 10, 15)
    c.instability.compare_levels = True
    if preset == "quick":
        c.replicates = 2
        c.data.test_examples = 2000
        c.training.duration = "120step"
        c.evaluation.every = "60step"
        c.lottery.levels = 1
        c.instability.copies = 2
        c.instability.start_steps = ("0step", "40step")
        c.instability.levels = (0, 1)
        c.instability.points = 5
        c.instability.examples = 1000
    return c
