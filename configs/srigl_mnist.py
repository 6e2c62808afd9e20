"""SRigL of LeNet-300-100 on MNIST.

Paper: Lasby, Golubeva, Evci, Nica, Ioannou, Dynamic Sparse Training with Structured
Sparsity, 2023, arXiv:2305.02299: all neurons of a layer have the same fan-in, and those
with fewer than 30 % of it as salient weights are removed; the others share their
weights. Layers are divided by Erdos-Renyi-Kernel, mask updates replace 30 % of the
weights at first and fewer later, by a cosine, until three quarters of training.

Deviations: network, data and length are not from the paper; training and the steps
between mask updates are those of `rigl_mnist`.

Command: python experiments/train.py --config=configs/srigl_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("srigl_mnist", preset)
    c.sparse.method = "srigl"
    c.sparse.update_every = "500step" if not preset else "50step"
    c.sparse.end_step = "75%"
    c.sparse.keep_neurons = ("head/*",)
    return c
