"""Instability analysis of LeNet-300-100 on MNIST.

From states at several steps of dense training, and of tickets at several levels, three
children train to the end with orders of examples of their own. What is recorded of each
pair ("segment"): error and loss at 30 points between them, the instability, their
distance, and what they classify differently.

Paper: Frankle, Dziugaite, Roy, Carbin, Linear Mode Connectivity and the Lottery Ticket
Hypothesis, 2020, arXiv:1912.05671: 3 initializations, 3 pairs of each.

Every level sees the examples in an order of its own: rounds that shared one would be
alike for that reason.

Deviations: Adam with rate 1.2e-3, batches of 60 and 24,000 updates are recalled, not
verified; weights begin Kaiming normal, and 20 % of all weights left are pruned at each
level, globally but for the output layer, as open_lth does.

Command: python experiments/train.py --config=configs/stability_mnist.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (1 level, 120 updates)."""
    c = config.start("stability_mnist", variant)
    c.replicates = 3
    c.data.name = "mnist"
    c.data.batch_size = 60
    c.data.order = "fresh"
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
    if variant == "quick":
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
