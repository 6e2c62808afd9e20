"""RigL with Erdos-Renyi-Kernel layers in ResNet-20 on CIFAR-10.

Evci, Gale, Menick, Castro, Elsen, Rigging the Lottery, 2020, arXiv:1911.11134, section
4.3: every 100 updates up to three quarters of training, 30 % of the weights at first
and less by a cosine; trained as `random_cifar`.

Command: python experiments/train.py --config=configs/rigl_erk_cifar.py
"""

from ml_collections import ConfigDict

from configs import random_cifar


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (1 seed, 300 steps)."""
    c = random_cifar.recipe("rigl_erk_cifar", variant)
    c.sparse.method = "rigl"
    c.sparse.distribution = "erk"
    c.sparse.update_every = "100step" if not variant else "20step"
    c.sparse.end_step = "75%"
    return c
