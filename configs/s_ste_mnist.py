"""S-STE, 2:4 sparsity of LeNet-300-100 on MNIST.

Paper: Hu, Zhu, Chen, S-STE: Continuous Pruning Function for Efficient 2:4 Sparse
Pre-training, 2024, arXiv:2409.09099. Of every four consecutive inputs two remain, by a
continuous soft threshold. Training is that of `random_mnist`.

Deviations: network, data and training are not from the paper. Gradients of activations
are exact and numbers have 32 bits.

Command: python experiments/train.py --config=configs/s_ste_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("s_ste_mnist", preset)
    c.sparse.method = "s_ste"
    c.sparse.structure = "groups 4"
    c.sparse.sparsity = 0.5
    return c
