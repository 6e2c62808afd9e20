"""ToST techniques for sparse training of ResNet-8 on CIFAR-10 at 16 by 16 pixels.

Paper: Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse Neural Network Better with
Any Mask, 2022, arXiv:2206.12755, in the small setting of `dense_cifar16.py`: soft
activations and ghost skips that are annealed away by half of training, initial weights
rescaled by 180 updates of GradInit, and label smoothing of 0.1 over the other classes
in all of training. Masks are random, at 95 % with Erdos-Renyi-Kernel layers, of all
layers but the last. `:baseline` has none of these techniques.

Deviations: network, data, length and masks are not from the paper. See also
`tost_cifar.py`.

Command: python experiments/train.py --config=configs/tost_cifar16.py
"""

from ml_collections import ConfigDict

from configs import dense_cifar16, tost_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "baseline" or "quick" (30 steps)."""
    c = dense_cifar16.recipe("tost_cifar16", preset, also=("baseline",))
    c.sparse.method = "static"
    c.sparse.sparsity = 0.95
    c.sparse.distribution = "erk"
    c.sparse.prunable = ("*kernel", "!head/kernel")
    if preset != "baseline":
        tost_mnist.help_training(c)
    if preset == "quick":
        c.gradinit.steps = 3
    return c
