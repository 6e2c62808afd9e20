"""GraSP for ResNet-20 on CIFAR-10.

Paper: Wang, Zhang, Grosse, Picking Winning Tickets Before Training by Preserving
Gradient Flow, 2020, arXiv:2002.07376: pruning at initialization by w H g, over all
layers together, scored on 10 batches of 128 examples.
`--config.sparse.pai_score=grasp_absolute` uses the absolute value. Training is that of
`random_cifar`.

Command: python experiments/train.py --config=configs/grasp_cifar.py
"""

from ml_collections import ConfigDict

from configs import random_cifar


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (1 seed, 300 steps)."""
    c = random_cifar.recipe("grasp_cifar", preset)
    c.sparse.pai_score = "grasp"
    return c
