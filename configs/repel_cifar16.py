"""Levels repelled from earlier solutions: ResNet-8 on CIFAR-10 at 16 by 16 pixels.

The recipe of `stable_imp_cifar16.py` with the repellent loss of Maene, Li, Moens,
Towards Understanding Iterative Magnitude Pruning: Why Lottery Tickets Win, 2021,
arXiv:2106.06955, with strength 2 as on CIFAR-10 in the paper.

Deviations: those of `repel_mnist.py` and `stable_imp_cifar16.py`. The strength was not
tuned for this network.

Command: python experiments/train.py --config=configs/repel_cifar16.py
"""

from ml_collections import ConfigDict

from configs import stable_imp_cifar16


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 levels, 30 steps)."""
    c = stable_imp_cifar16.recipe("repel_cifar16", preset)
    c.solution_penalty.strength = 2.0
    return c
