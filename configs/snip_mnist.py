"""SNIP in LeNet-300-100 on MNIST.

Lee, Ajanthan, Torr, 2019, arXiv:1810.02340: pruned at initialization by |w dL/dw|, over
all layers together, trained as `random_mnist`. Scored on 5,000 training examples, as in
Evci et al. 2020, arXiv:2010.03533;
the paper takes one batch.

Command: python experiments/train.py --config=configs/snip_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("snip_mnist", variant)
    c.sparse.pai_score = "snip"
    c.sparse.score_batches = 40
    c.sparse.score_batch_size = 125
    return c
