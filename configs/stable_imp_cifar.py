r"""Iterative magnitude pruning from initialization: ResNet-20 on CIFAR-10.

Paper: Maene, Li, Moens, Towards Understanding Iterative Magnitude Pruning: Why Lottery
Tickets Win, 2021, arXiv:2106.06955, table 1: momentum 0.9, learning rate 0.1, times 0.1
at epochs 56 and 71 of 85, weight decay 1e-5, Kaiming normal weights, 25 levels of 20 %,
weights reset to initialization, 3 seeds, reinitialized controls, two copies of levels
5, 10 and 15. Training is stable with batches of 1,024 and unstable with
`--config.data.batch_size=128`; 512 is in between, where warmup helps
(`--config.schedule.warmup=10ep`).

`:conv_4` is the Conv-4 of the paper: learning rate 0.01 with cosine decay over 75
epochs, batches of 128, stable. The unstable setting of the paper has batches of 16,
weight decay 0.01 and a learning rate times 0.1 at epochs 55 and 65:

    --config.data.batch_size=16 --config.optimizer.weight_decay=0.01 \
    --config.schedule.name=step --config.schedule.milestones="('55ep','65ep')"

`:small` is not from the paper. It is for two CPU cores: as `:conv_4`, but LeNet-5 on
5,000 examples for 8 epochs without augmentation, 8 levels, 2,000 test examples.

Deviations: BatchNorm has no scale and bias, which is how "affine" in the paper is
understood here (`--config.model.norm_affine=true` adds them). The paper does not
specify the augmentation; crops and flips are the usual ones. Biases start at zero, and
interpolations have 30 points instead of 20. Each level has its own order of examples,
see `stable_imp_mnist.py`. `:small` keeps weight decay and schedule also with batches of
16.

Command: python experiments/train.py --config=configs/stable_imp_cifar.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "conv_4", "small" or "quick"."""
    c = config.start("stable_imp_cifar", preset, also=("conv_4", "small"))
    c.replicates = 3
    c.data.name = "cifar10"
    c.data.batch_size = 1024
    c.data.reshuffle_each_level = True
    c.data.crop_pad = 4
    c.data.flip = True
    c.optimizer.momentum = 0.9
    c.optimizer.weight_decay = 1e-5
    c.lottery.levels = 25
    c.lottery.controls = ("reinitialized",)
    c.instability.copies = 2
    c.instability.levels = (0, 5, 10, 15)
    c.instability.compare_levels = True
    if preset in ("conv_4", "small"):
        return _conv(c, preset)
    c.model.name = "resnet_20"
    c.model.norm_affine = False
    c.schedule.name = "step"
    c.schedule.learning_rate = 0.1
    c.schedule.milestones = ("56ep", "71ep")
    c.training.duration = "85ep"
    c.evaluation.every = "5ep"
    if preset == "quick":
        c.replicates = 2
        c.data.batch_size = 128
        c.data.train_examples = 1000
        c.data.test_examples = 500
        c.model.width = 4
        c.schedule.milestones = ("30step", "40step")
        c.training.duration = "48step"
        c.evaluation.every = "24step"
        c.lottery.levels = 2
        c.instability.levels = (0, 2)
        c.instability.points = 5
        c.instability.examples = 1000
        c.run.checkpoint_every = "24step"
    return c


def _conv(c: ConfigDict, preset: str) -> ConfigDict:
    c.data.batch_size = 128
    c.model.name = "conv_4"
    c.schedule.name = "cosine"
    c.schedule.learning_rate = 0.01
    c.training.duration = "75ep"
    c.evaluation.every = "5ep"
    if preset == "small":
        c.data.crop_pad = 0
        c.data.flip = False
        c.data.train_examples = 5000
        c.data.test_examples = 2000
        c.model.name = "lenet_5"
        c.model.padding = "VALID"
        c.training.duration = "8ep"
        c.evaluation.every = "4ep"
        c.lottery.levels = 8
        c.instability.levels = (0, 4, 8)
        c.instability.points = 11
        c.instability.examples = 1000
    return c
