"""Gradual pruning of ResNet-8 on CIFAR-10 at 16 by 16 pixels, with gradient norms.

Paper: Evci, Ioannou, Keskin, Dauphin, Gradient Flow in Sparse Neural Networks and How
Lottery Tickets Win, 2020, arXiv:2010.03533, in the small setting of `dense_cifar16.py`:
each layer is pruned to 95 % by magnitude between one eighth and three quarters of
training, every 20 steps. The gradient norm on the first 1,000 training examples is
recorded every 20 steps.

Deviations: network, data and length are not from the paper. See also
`gradient_flow_mnist.py`.

Command: python experiments/train.py --config=configs/gradient_flow_cifar16.py
"""

from ml_collections import ConfigDict

from configs import rigl_cifar16


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 30 steps)."""
    c = rigl_cifar16.recipe("gradient_flow_cifar16", preset)
    c.sparse.method = "gmp"
    c.sparse.distribution = "uniform"
    c.sparse.begin_step = "12.5%"
    c.sparse.end_step = "75%"
    c.analysis.gradient_every = c.sparse.update_every
    return c
