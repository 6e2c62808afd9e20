"""Sparse evolutionary training (SET) of ResNet-8 on CIFAR-10 at 16 by 16 pixels.

Paper: Mocanu et al., Scalable Training of Artificial Neural Networks with Adaptive
Sparse Connectivity Inspired by Network Science, 2018, arXiv:1707.04780, in the small
setting of `dense_cifar16.py`: 95 % of the weights are pruned, with Erdos-Renyi-Kernel
layers; at each mask update, the 30 % of the weights nearest to zero, separately for
each sign, are replaced by random ones.

Deviations: network, data and length are not from the paper. Masks are updated every 20
steps, as in `rigl_cifar16.py`; the paper updates them after each epoch, of which there
are 4 here.

Command: python experiments/train.py --config=configs/set_cifar16.py
"""

from ml_collections import ConfigDict

from configs import rigl_cifar16


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 30 steps)."""
    c = rigl_cifar16.recipe("set_cifar16", preset)
    c.sparse.method = "set"
    return c
