"""RigL with Erdos-Renyi-Kernel layers for LeNet-300-100 on MNIST.

As `rigl_mnist`, with the layer sparsities of Evci, Gale, Menick, Castro, Elsen, Rigging
the Lottery, 2020, arXiv:1911.11134, section 3 (Erdos-Renyi-Kernel).

Command: python experiments/train.py --config=configs/rigl_erk_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("rigl_erk_mnist", preset)
    c.sparse.method = "rigl"
    c.sparse.distribution = "erk"
    c.sparse.update_every = "500step" if not preset else "50step"
    c.sparse.drop_schedule = "learning_rate"
    c.sparse.grow_batch_size = 1000
    c.sparse.end_step = "100%"
    return c
