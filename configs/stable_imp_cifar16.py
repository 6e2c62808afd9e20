"""Iterative magnitude pruning from initialization: ResNet-8 on CIFAR-10 at 16 by 16.

Paper: Maene, Li, Moens, Towards Understanding Iterative Magnitude Pruning: Why Lottery
Tickets Win, 2021, arXiv:2106.06955, in the small setting of `dense_cifar16.py`: eight
levels of 20 % (17 % of the weights remain), weights reset to initialization,
reinitialized controls, two copies of levels 0, 4 and 8. Each level draws its own order
of examples and its own augmentation.

Deviations: network, data and length are not from the paper. BatchNorm has a scale and a
bias. Interpolations have 11 points and are evaluated on 2,000 training examples. See
also `stable_imp_cifar.py`.

Command: python experiments/train.py --config=configs/stable_imp_cifar16.py
"""

from ml_collections import ConfigDict

from configs import dense_cifar16


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 levels, 30 steps)."""
    return recipe("stable_imp_cifar16", preset)


def recipe(name: str, preset: str) -> ConfigDict:
    """Returns the settings that this recipe shares with `repel_cifar16`."""
    c = dense_cifar16.recipe(name, preset)
    c.data.reshuffle_each_level = True
    c.lottery.levels = 8
    c.lottery.controls = ("reinitialized",)
    c.instability.copies = 2
    c.instability.levels = (0, 4, 8)
    c.instability.compare_levels = True
    c.instability.points = 11
    c.instability.examples = 2000
    if preset == "quick":
        c.lottery.levels = 2
        c.instability.levels = (0, 2)
        c.instability.points = 3
        c.instability.examples = 1000
    return c
