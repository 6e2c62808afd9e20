"""RigL in LeNet-300-100 on MNIST.

Evci, Gale, Menick, Castro, Elsen, Rigging the Lottery, 2020, arXiv:1911.11134, as in
Evci et al. 2020, arXiv:2010.03533: every 500 updates to the end, 30 % of the weights at
first and less in proportion to the learning rate, grown by the gradient on 1,000 fixed
training examples, uniform layers; trained as `random_mnist`.

Deviations: the examples are the first thousand, not the second; the optimizer's step is
skipped when masks change, as in arXiv:1911.11134; masks start random.

Command: python experiments/train.py --config=configs/rigl_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("rigl_mnist", variant)
    c.sparse.method = "rigl"
    c.sparse.distribution = "uniform"
    c.sparse.update_every = "500step" if not variant else "50step"
    c.sparse.drop_schedule = "learning_rate"
    c.sparse.grow_batch_size = 1000
    c.sparse.end_step = "100%"
    return c
