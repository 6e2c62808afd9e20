"""Lottery tickets of ResNet-8 on CIFAR-10 at 16 by 16 pixels, with rewinding.

Paper: Frankle, Dziugaite, Roy, Carbin, Linear Mode Connectivity and the Lottery Ticket
Hypothesis, 2020, arXiv:1912.05671, in the small setting of `dense_cifar16.py`: two
levels, each of which prunes 60 % of the remaining weights (16 % remain), weights
rewound to step 150, and two controls of the last level. Each level draws its own order
of examples and its own augmentation.

Deviations: network, data and length are not from the paper. It prunes 20 % at each
level, and its levels repeat the order of examples of the dense training.

Command: python experiments/train.py --config=configs/lth_cifar16.py
"""

from ml_collections import ConfigDict

from configs import dense_cifar16


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 30 steps)."""
    c = recipe("lth_cifar16", preset)
    c.lottery.controls = ("reinitialized", "shuffled_layers")
    c.lottery.control_levels = (2,)
    return c


def recipe(name: str, preset: str, *, also: tuple[str, ...] = ()) -> ConfigDict:
    """Returns the settings that recipes with these two levels share.

    Args:
      name: name of the recipe.
      preset: preset of the recipe; "" for none.
      also: presets of the recipe in addition to "quick".
    """
    c = dense_cifar16.recipe(name, preset, also=also)
    c.data.reshuffle_each_level = True
    c.lottery.levels = 2
    c.lottery.fraction = 0.6
    c.lottery.rewind = "150step" if preset != "quick" else "3step"
    return c
