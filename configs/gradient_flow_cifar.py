"""Gradual pruning of ResNet-20 on CIFAR-10, the masks of a study for one GPU.

It takes the place of the ImageNet networks of Evci, Ioannou, Keskin, Dauphin, Gradient
Flow in Sparse Neural Networks and How Lottery Tickets Win, 2020, arXiv:2010.03533 (see
`gradient_flow_imagenet`), which no single GPU trains in a day. Training is that of
`random_cifar`, pruned layer by layer to 95 % between one eighth and three quarters of
training. The gradient norm on the first 1,000 training examples is recorded every 500
steps.

Deviations: network, data and sparsity are not from the paper.

Command: python experiments/train.py --config=configs/gradient_flow_cifar.py
"""

from ml_collections import ConfigDict

from configs import random_cifar


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (1 seed, 300 steps)."""
    c = random_cifar.recipe("gradient_flow_cifar", preset)
    c.replicates = 5 if not preset else 1
    c.sparse.method = "gmp"
    c.sparse.sparsity = 0.95
    c.sparse.distribution = "uniform"
    c.sparse.begin_step = "12.5%"
    c.sparse.end_step = "75%"
    c.sparse.update_every = "100step" if not preset else "20step"
    c.analysis.gradient_every = "500step" if not preset else "100step"
    return c
