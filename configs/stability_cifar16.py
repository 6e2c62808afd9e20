"""Instability analysis of ResNet-8 on CIFAR-10 at 16 by 16 pixels.

Paper: Frankle, Dziugaite, Roy, Carbin, Linear Mode Connectivity and the Lottery Ticket
Hypothesis, 2020, arXiv:1912.05671, in the small setting of `dense_cifar16.py`, with the
levels of `lth_cifar16.py`. Two copies of states at several steps of dense training, and
of the last ticket, are trained to the end, each with its own order of examples and
augmentation; see `stability_mnist.py` for what is recorded.

Deviations: those of `lth_cifar16.py` and `stability_cifar.py`. The interpolation has 11
points and is evaluated on 2,000 training examples.

Command: python experiments/train.py --config=configs/stability_cifar16.py
"""

from ml_collections import ConfigDict

from configs import lth_cifar16


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 30 steps)."""
    c = lth_cifar16.recipe("stability_cifar16", preset)
    c.instability.copies = 2
    c.instability.start_steps = ("0step", "50step", "150step", "500step")
    c.instability.levels = (0, 2)
    c.instability.compare_levels = True
    c.instability.points = 11
    c.instability.examples = 2000
    if preset == "quick":
        c.instability.start_steps = ("0step", "3step")
        c.instability.points = 3
        c.instability.examples = 1000
    return c
