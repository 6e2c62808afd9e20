"""Dense training of LeNet-300-100 on MNIST.

Command: python experiments/train.py --config=configs/dense_mnist.py
"""

from ml_collections import ConfigDict

from configs import lth_mnist


def get_config(variant: str = "") -> ConfigDict:
    """Returns `lth_mnist` without pruning; `variant` as there."""
    c = lth_mnist.get_config(variant)
    c.name = "dense_mnist"
    c.lottery.levels = 0
    c.lottery.controls = ()
    return c
