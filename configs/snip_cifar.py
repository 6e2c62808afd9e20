"""SNIP for ResNet-20 on CIFAR-10.

Paper: Lee, Ajanthan, Torr, SNIP: Single-Shot Network Pruning Based on Connection
Sensitivity, 2019, arXiv:1810.02340: pruning at initialization by |w dL/dw|, over all
layers together, scored on 10 batches of 128 examples; the paper uses one batch.
Training is that of `random_cifar`.

Command: python experiments/train.py --config=configs/snip_cifar.py
"""

from ml_collections import ConfigDict

from configs import random_cifar


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (1 seed, 300 steps)."""
    c = random_cifar.recipe("snip_cifar", preset)
    c.sparse.pai_score = "snip"
    return c
