"""Levels repelled from the solutions of all earlier levels: LeNet-300-100 on MNIST.

The recipe of `stable_imp_mnist.py` with batches of 1,024 and the repellent loss of
Maene, Li, Moens, Towards Understanding Iterative Magnitude Pruning: Why Lottery Tickets
Win, 2021, arXiv:2106.06955: twice the mean over earlier levels of the squared cosine
similarity of the weights, within the masks of the level. `:attract` has the factor -1
of the paper in place of 2, and batches of 60: training that is attracted to earlier
solutions.

Deviations: earlier solutions are stored in bfloat16;
`--config.solution_penalty.dtype=float32` stores them exactly. Reinitialized controls
are repelled from the solutions of the tickets of earlier levels, as the tickets are.
The paper does not say from which solutions they are repelled.

Command: python experiments/train.py --config=configs/repel_mnist.py
"""

from ml_collections import ConfigDict

from configs import stable_imp_mnist
from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "attract" or "quick"."""
    plain = config.start("repel_mnist", preset, also=("attract",))
    c = stable_imp_mnist.get_config("quick" if preset == "quick" else "")
    c.name = plain.name
    if preset == "attract":
        c.solution_penalty.strength = -1.0
        return c
    c.data.batch_size = 200 if preset == "quick" else 1024
    c.solution_penalty.strength = 2.0
    return c
