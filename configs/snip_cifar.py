"""SNIP in ResNet-20 on CIFAR-10.

Lee, Ajanthan, Torr, 2019, arXiv:1810.02340: pruned at initialization by |w dL/dw|, over
all layers together, trained as `random_cifar`. Scored on 10 batches of 128;
the paper takes one batch.

Command: python experiments/train.py --config=configs/snip_cifar.py
"""

from ml_collections import ConfigDict

from configs import random_cifar


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (1 seed, 300 steps)."""
    c = random_cifar.recipe("snip_cifar", variant)
    c.sparse.pai_score = "snip"
    return c
