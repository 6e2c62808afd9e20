"""Instability analysis of ResNet-20 on CIFAR-10.

Paper: Frankle, Dziugaite, Roy, Carbin, Linear Mode Connectivity and the Lottery Ticket
Hypothesis, 2020, arXiv:1912.05671: 3 initializations, 3 pairs of copies of each. Dense
networks were stable from step 2,000 on, tickets from step 500. Training is as in
open_lth: 160 epochs, learning rate 0.1 and momentum 0.9, learning rate times 0.1 at
epochs 80 and 120, weight decay 1e-4, batches of 128.

Three copies of states at several steps of dense training, and of tickets at several
levels, are trained to the end, each with its own order of examples and augmentation;
see `stability_mnist.py` for what is recorded.

`:small` is not from the paper. It is for two CPU cores: LeNet-5 on 5,000 examples
without augmentation, batches of 32, momentum 0.9, a learning rate that decays from 0.02
by a cosine, 8 epochs, 2,000 test examples. The ratio of learning rate to batch size is
close to the published one.

Deviations: the running statistics of BatchNorm are interpolated like the weights, as in
the code of Paul et al. (2022); how Frankle et al. treat them is not known
(`--config.instability.batch_stats=re_estimated` estimates them on training examples).
Levels above 0 start at the rewinding step, `lottery.rewind`, and so do their first
copies. Copies from later steps have the same masks; Frankle et al. searched masks for
each step.

Command: python experiments/train.py --config=configs/stability_cifar.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "small" or "quick" (1 level, 60 steps)."""
    c = config.start("stability_cifar", preset, also=("small",))
    c.replicates = 3
    c.data.name = "cifar10"
    c.data.reshuffle_each_level = True
    c.optimizer.momentum = 0.9
    c.instability.copies = 3
    c.instability.compare_levels = True
    if preset == "small":
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
    if preset == "quick":
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
