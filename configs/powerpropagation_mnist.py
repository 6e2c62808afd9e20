"""Powerpropagation with gradual magnitude pruning of LeNet-300-100 on MNIST.

Paper: Schwarz, Jayakumar, Pascanu, Latham, Teh, Powerpropagation: A sparsity inducing
weight reparameterisation, 2021, arXiv:2110.00296, which combines it with gradual
pruning among others. Pruning and training are those of `gmp_mnist`; only the weights
are reparameterized, with power 2.

Deviations: the pruning schedule is that of `gmp_mnist`. In the paper's experiment on
MNIST, networks are pruned once, after training. The paper tunes the power.

Command: python experiments/train.py --config=configs/powerpropagation_mnist.py
"""

from ml_collections import ConfigDict

from configs import gmp_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = gmp_mnist.get_config(preset)
    c.name = "powerpropagation_mnist"
    c.sparse.reparameterization = "powerpropagation"
    c.sparse.weight_power = 2.0
    return c
