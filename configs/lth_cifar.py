"""Lottery tickets in ResNet-20 on CIFAR-10, with rewinding.

Paper: Frankle, Dziugaite, Roy, Carbin, Linear Mode Connectivity and the Lottery Ticket
Hypothesis, 2020, arXiv:1912.05671, with the hyperparameters of open_lth: SGD with rate
0.1 and momentum 0.9, times 0.1 after 80 and 120 of 160 epochs, weight decay 1e-4 on
everything, batches of 128, random crops and flips, gamma of BatchNorm uniform.

Deviations: 5,000 training examples are set aside for validation, where open_lth trains
on all 50,000, so an epoch has 352 steps and not 391, and 160 epochs 56,320 and not
62,560 (`--config.data.validation=0` restores both, without early stopping); images are
normalized by CIFAR-10's channels, not ImageNet's; they are cropped, then flipped, where
open_lth flips first; counts are exact, `--config.lottery.count_rule=open_lth` gives
theirs.

The rewinding step is a field: `--config.lottery.rewind=1000step`, or 0step for
initialization, or "2ep", or "1%".

Command: python experiments/train.py --config=configs/lth_cifar.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (2 levels, 300 steps)."""
    c = config.start("lth_cifar", variant)
    c.replicates = 3
    c.data.name = "cifar10"
    c.data.validation = 5000
    c.data.crop_pad = 4
    c.data.flip = True
    c.model.name = "resnet_20"
    c.init.norm_scale = "uniform"
    c.init.bias = "torch_default"
    c.optimizer.momentum = 0.9
    c.optimizer.weight_decay = 1e-4
    c.schedule.name = "step"
    c.schedule.learning_rate = 0.1
    c.schedule.milestones = ("80ep", "120ep")
    c.training.duration = "160ep"
    c.lottery.levels = 10
    c.lottery.rewind = "1000step"
    c.lottery.controls = ("reinitialized", "shuffled_layers")
    c.lottery.control_levels = (4, 8)
    if variant == "quick":
        c.replicates = 1
        c.training.duration = "300step"
        c.schedule.milestones = ("200step", "260step")
        c.evaluation.every = "100step"
        c.data.test_examples = 2000
        c.data.validation = 1000
        c.lottery.levels = 2
        c.lottery.rewind = "50step"
        c.lottery.controls = ()
        c.lottery.control_levels = ()
        c.run.checkpoint_every = "50step"
    return c
