"""SNIP for LeNet-300-100 on MNIST.

Paper: Lee, Ajanthan, Torr, SNIP: Single-Shot Network Pruning Based on Connection
Sensitivity, 2019, arXiv:1810.02340: pruning at initialization by |w dL/dw|, over all
layers together, scored on 5,000 training examples as in Evci et al., 2020,
arXiv:2010.03533; the paper uses one batch. Training is that of `random_mnist`.

Command: python experiments/train.py --config=configs/snip_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("snip_mnist", preset)
    c.sparse.pai_score = "snip"
    c.sparse.score_batches = 40
    c.sparse.score_batch_size = 125
    return c
