"""Instability analysis of ResNet-20 on CIFAR-10, or of a small network on a part of it.

Three children train from states at several steps of dense training, and of tickets at
several levels, to the end, with orders and augmentation of their own; see
`stability_mnist.py` for what is recorded.

Paper: Frankle, Dziugaite, Roy, Carbin, Linear Mode Connectivity and the Lottery Ticket
Hypothesis, 2020, arXiv:1912.05671: 3 initializations, 3 pairs of each. Dense networks
were stable from update 2,000 on, tickets from 500. Training as in open_lth: 160 epochs,
rate 0.1 and momentum 0.9, times 0.1 at epochs 80 and 120, weight decay 1e-4, batches of
128.

`:small` is ours, for two CPU cores: LeNet-5 on 5,000 examples, not augmented, batches
of 32, momentum 0.9 and a rate that falls as a cosine from 0.02, 8 epochs, tested on
2,000; the ratio of rate to batch is near the published one.

Deviations: BatchNorm is interpolated whole, with its running statistics, as in the code
of Paul et al. (2022); what Frankle et al. did is not known
(`--config.instability.batch_stats=re_estimated` measures them anew). Levels above 0
begin at the rewinding step, `lottery.rewind`, and so do their first children: those of later
steps share its masks, where Frankle et al. searched masks for each step.

Command: python experiments/train.py --config=configs/stability_cifar.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "", "small" or "quick" (1 level, 60 updates)."""
    c = config.start("stability_cifar", variant, also=("small",))
    c.replicates = 3
    c.data.name = "cifar10"
    c.data.order = "fresh"
    c.optimizer.momentum = 0.9
    c.instability.copies = 3
    c.instability.compare_levels = True
    if variant == "small":
        return _small(c)
    c.data.batch_size = 128
    c.data.crop_pad = 4
    c.data.flip = True
    c.model.name = "resnet_20"
    c.init.norm_scale = "uniform"
    c.init.bias = "torch_default"
    c.optimizer.weight_decay = 1e-4
    c.schedule.name = "step"
    c.schedule.learning_rate = 0.1
    c.schedule.milestones = ("80ep", "120ep")
    c.training.duration = "160ep"
    c.evaluation.every = "10ep"
    c.lottery.levels = 8
    c.lottery.rewind = "500step"
    c.instability.start_steps = ("0step", "100step", "500step", "1000step", "2000step")
    c.instability.levels = (0, 8)
    if variant == "quick":
        c.replicates = 2
        c.data.train_examples = 1000
        c.data.test_examples = 500
        c.model.width = 4
        c.schedule.milestones = ("40step", "50step")
        c.training.duration = "60step"
        c.evaluation.every = "30step"
        c.lottery.levels = 1
        c.lottery.rewind = "10step"
        c.instability.copies = 2
        c.instability.start_steps = ("0step", "10step")
        c.instability.levels = (0, 1)
        c.instability.points = 5
        c.instability.examples = 1000
        c.run.checkpoint_every = "30step"
    return c


def _small(c: ConfigDict) -> ConfigDict:
    c.data.batch_size = 32
    c.data.train_examples = 5000
    c.data.test_examples = 2000
    c.model.name = "lenet_5"
    c.model.padding = "VALID"
    c.init.bias = "torch_default"
    c.schedule.name = "cosine"
    c.schedule.learning_rate = 0.02
    c.training.duration = "8ep"
    c.evaluation.every = "4ep"
    c.lottery.levels = 8
    c.instability.start_steps = (
        "0step",
        "20step",
        "40step",
        "80step",
        "160step",
        "320step",
    )
    c.instability.levels = (0, 4, 8)
    c.instability.points = 11
    c.instability.examples = 1000
    return c
