"""Dense training of LeNet-300-100 on MNIST.

Command: python experiments/train.py --config=configs/dense_mnist.py
"""

from ml_collections import ConfigDict

from configs import lth_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns `lth_mnist` without pruning; `preset` as there."""
    c = lth_mnist.get_config(preset)
    c.name = "dense_mnist"
    c.lottery.levels = 0
    c.lottery.controls = ()
    return c
