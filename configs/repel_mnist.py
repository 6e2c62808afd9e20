"""Levels repelled from the solutions of all levels before, in LeNet-300-100 on MNIST.

The recipe is that of `stable_imp_mnist.py` at batches of 1,024, with the repellent loss
of Maene, Li, Moens, Towards Understanding Iterative Magnitude Pruning: Why Lottery
Tickets Win, 2021, arXiv:2106.06955: twice the mean over earlier rounds of the squared
cosine between the weights, under the round's mask. `:attract` has the paper's -1 in
place of 2, at batches of 60: training that is drawn to earlier solutions.

Deviations: earlier solutions are held in bfloat16
(`--config.solution_penalty.dtype=float32` for all of their bits).

Command: python experiments/train.py --config=configs/repel_mnist.py
"""

from ml_collections import ConfigDict

from configs import stable_imp_mnist
from jaxsparse import config


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "", "attract" or "quick"."""
    plain = config.start("repel_mnist", variant, also=("attract",))
    c = stable_imp_mnist.get_config("quick" if variant == "quick" else "")
    c.name = plain.name
    if variant == "attract":
        c.solution_penalty.strength = -1.0
        return c
    c.data.batch_size = 200 if variant == "quick" else 1024
    c.solution_penalty.strength = 2.0
    return c
