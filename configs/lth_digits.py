"""Lottery tickets of LeNet-300-100 on the embedded digits, in a minute or two.

Paper: Frankle, Carbin, The Lottery Ticket Hypothesis, 2019, arXiv:1803.03635, section
2, for the 8x8 digits of scikit-learn instead of MNIST: Adam with learning rate 1.2e-3,
batches of 60, Glorot normal weights, rewinding to initialization.

Command: python experiments/train.py --config=configs/lth_digits.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (levels 0 to 2, 2 replicates)."""
    c = config.start("lth_digits", preset)
    c.replicates = 5
    c.data.name = "digits"
    c.data.validation = 287
    c.data.batch_size = 60
    c.data.drop_last = True  # 19 steps per epoch
    c.model.name = "lenet_300_100"
    c.init.kernel = "glorot_normal"
    c.optimizer.name = "adam"
    c.schedule.learning_rate = 1.2e-3
    c.training.duration = "32ep"  # 608 steps
    c.evaluation.every = "1ep"
    c.run.checkpoint_every = None
    c.lottery.levels = 21
    c.lottery.controls = ("reinitialized", "shuffled_layers", "random_mask")
    if preset == "quick":
        c.replicates = 2
        c.training.duration = "5ep"
        c.lottery.levels = 2
    return c
