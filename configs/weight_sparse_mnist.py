"""Weight-sparse training of LeNet-300-100 on MNIST.

Paper: Gao, Rajaram, Coxon, Govande, Baker, Mossing, Weight-sparse transformers have
interpretable circuits, 2025, arXiv:2511.13653. After each step of AdamW, the largest
weights of every tensor are kept, also of biases; their number decreases linearly to 2 %
in the first half of training.

Deviations: an MLP in place of a transformer; batches and length are those of
`random_mnist`, and the learning rate is that of the other recipes with Adam. Gradients
are not clipped.

Command: python experiments/train.py --config=configs/weight_sparse_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("weight_sparse_mnist", preset)
    anneal(c)
    c.sparse.prunable = ("*",)
    c.optimizer.name = "adamw"
    c.optimizer.momentum = 0.0
    c.optimizer.weight_decay = 0.1
    c.schedule.learning_rate = 1.2e-3
    return c


def anneal(c: ConfigDict) -> None:
    """Keeps the largest weights after each step, fewer up to half of training.

    Args:
      c: the recipe, which is changed.
    """
    c.sparse.method = "weight_sparse"
    c.sparse.schedule = "linear"
    c.sparse.begin_step = "0step"
    c.sparse.end_step = "50%"
    c.sparse.update_every = "1step"
