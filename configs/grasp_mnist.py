"""GraSP for LeNet-300-100 on MNIST.

Paper: Wang, Zhang, Grosse, Picking Winning Tickets Before Training by Preserving
Gradient Flow, 2020, arXiv:2002.07376: pruning at initialization by w H g, over all
layers together, scored on 5,000 training examples as in Evci, Ioannou, Keskin, Dauphin,
Gradient Flow in Sparse Neural Networks and How Lottery Tickets Win, 2020,
arXiv:2010.03533. `--config.sparse.pai_score=grasp_absolute` uses the absolute value.
Training is that of `random_mnist`.

Command: python experiments/train.py --config=configs/grasp_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("grasp_mnist", preset)
    c.sparse.pai_score = "grasp"
    c.sparse.score_batches = 40
    c.sparse.score_batch_size = 125
    return c
