"""RigL for LeNet-300-100 on MNIST.

Paper: Evci, Gale, Menick, Castro, Elsen, Rigging the Lottery, 2020, arXiv:1911.11134,
with the settings of Evci et al., 2020, arXiv:2010.03533: mask updates every 500 steps
until the end, which replace 30 % of the weights at first and fewer later, in proportion
to the learning rate; weights are grown by the gradient on 1,000 fixed training
examples; all layers have the same sparsity. Training is that of `random_mnist`.

Deviations: the fixed examples are the first thousand, not the second. The optimizer
step is skipped at mask updates, as in arXiv:1911.11134. The initial masks are random.

Command: python experiments/train.py --config=configs/rigl_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("rigl_mnist", preset)
    c.sparse.method = "rigl"
    c.sparse.distribution = "uniform"
    c.sparse.update_every = "500step" if not preset else "50step"
    c.sparse.drop_schedule = "learning_rate"
    c.sparse.grow_batch_size = 1000
    c.sparse.end_step = "100%"
    return c
