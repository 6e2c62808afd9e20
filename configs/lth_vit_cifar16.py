"""Lottery tickets of a small vision transformer on CIFAR-10, with rewinding.

Paper: Frankle, Dziugaite, Roy, Carbin, Linear Mode Connectivity and the Lottery Ticket
Hypothesis, 2020, arXiv:1912.05671, in the small setting of `dense_vit_cifar16.py`: two
levels, each of which prunes 55 % of the remaining weights (20 % remain), and weights
rewound to the end of the first epoch, when the learning rate is at its peak.

Deviations: network, data and length are not from the paper, which prunes 20 % at each
level.

Command: python experiments/train.py --config=configs/lth_vit_cifar16.py
"""

from ml_collections import ConfigDict

from configs import dense_vit_cifar16


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 30 steps, 1 block)."""
    c = dense_vit_cifar16.recipe("lth_vit_cifar16", preset)
    c.lottery.levels = 2
    c.lottery.fraction = 0.55
    c.lottery.exclude = dense_vit_cifar16.NOT_PRUNED
    c.lottery.rewind = "1ep" if preset != "quick" else "3step"
    return c
