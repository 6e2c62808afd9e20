"""RigL for ResNet-20 on CIFAR-10.

Paper: Evci, Gale, Menick, Castro, Elsen, Rigging the Lottery, 2020, arXiv:1911.11134,
section 4.3: mask updates every 100 steps until three quarters of training, which
replace 30 % of the weights at first and fewer later, by a cosine; the first layer is
dense. Training is that of `random_cifar`.

Command: python experiments/train.py --config=configs/rigl_cifar.py
"""

from ml_collections import ConfigDict

from configs import random_cifar


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (1 seed, 300 steps)."""
    c = random_cifar.recipe("rigl_cifar", preset)
    c.sparse.method = "rigl"
    c.sparse.distribution = "uniform"
    c.sparse.update_every = "100step" if not preset else "20step"
    c.sparse.end_step = "75%"
    c.sparse.first_layer_dense = True
    return c
