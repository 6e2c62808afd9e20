"""Lottery tickets of ResNet-20 on CIFAR-10, with rewinding.

Paper: Frankle, Dziugaite, Roy, Carbin, Linear Mode Connectivity and the Lottery Ticket
Hypothesis, 2020, arXiv:1912.05671, with the hyperparameters of open_lth: SGD with
learning rate 0.1 and momentum 0.9, learning rate times 0.1 after 80 and 120 of 160
epochs, weight decay 1e-4 on all parameters, batches of 128, random crops and flips,
uniform initial scale of BatchNorm.

The rewinding step is a field: `--config.lottery.rewind=1000step`, `0step` for
initialization, `2ep` or `1%`.

Deviations: 5,000 training examples are set aside for validation; open_lth trains on all
50,000. An epoch therefore has 352 instead of 391 steps, and 160 epochs have 56,320
instead of 62,560. `--config.data.validation=0` restores both, without early stopping.
Images are standardized by the channels of CIFAR-10, not of ImageNet. They are cropped,
then flipped; open_lth flips first. Numbers of weights are exact;
`--config.lottery.count_rule=open_lth` has those of open_lth.

Command: python experiments/train.py --config=configs/lth_cifar.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 levels, 300 steps)."""
    c = config.start("lth_cifar", preset)
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
    if preset == "quick":
        c.replicates = 1
        c.training.duration = "300step"
        c.schedule.milestones = ("200step", "260step")
        c.evaluation.every = "100step"
        c.data.test_examples = 2000
        c.data.validation = 1000
        c.lottery.levels = 2
        c.lottery.rewind = "50step"
        c.lottery.controls = ()
        c.lottery.control_levels = None
        c.run.checkpoint_every = "50step"
    return c
