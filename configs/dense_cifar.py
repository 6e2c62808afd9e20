"""Dense training of ResNet-20 on CIFAR-10 for 160 epochs.

Command: python experiments/train.py --config=configs/dense_cifar.py
"""

from ml_collections import ConfigDict

from configs import lth_cifar


def get_config(preset: str = "") -> ConfigDict:
    """Returns `lth_cifar` without pruning; `preset` is "" or "quick"."""
    c = lth_cifar.get_config(preset)
    c.name = "dense_cifar"
    c.lottery.levels = 0
    c.lottery.rewind = "0step"
    c.lottery.controls = ()
    c.lottery.control_levels = None
    return c
