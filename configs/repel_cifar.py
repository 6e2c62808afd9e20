"""Levels repelled from the solutions of all earlier levels: ResNet-20 on CIFAR-10.

The recipe of `stable_imp_cifar.py` with batches of 1,024 and the repellent loss of
Maene, Li, Moens, Towards Understanding Iterative Magnitude Pruning: Why Lottery Tickets
Win, 2021, arXiv:2106.06955, with strength 2, which the paper tuned on CIFAR-10 to be
just sufficient. `:attract` has strength -1 and batches of 128, where training is
unstable.

Deviations: those of `repel_mnist.py` and `stable_imp_cifar.py`.

Command: python experiments/train.py --config=configs/repel_cifar.py
"""

from ml_collections import ConfigDict

from configs import stable_imp_cifar
from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "attract" or "quick"."""
    plain = config.start("repel_cifar", preset, also=("attract",))
    c = stable_imp_cifar.get_config("quick" if preset == "quick" else "")
    c.name = plain.name
    c.solution_penalty.strength = 2.0
    if preset == "attract":
        c.data.batch_size = 128
        c.solution_penalty.strength = -1.0
    return c
