"""Sign-In with random static masks for LeNet-300-100 on MNIST.

Paper: Gadhikar, Jacobs, Zhou, Burkholz, Sign-In to the Lottery: Reparameterizing Sparse
Training From Scratch, 2025, arXiv:2504.12801. Weights are products of two factors under
fixed masks, with an inner scaling of 1 that is restored every second epoch in the first
half of training. Masks and training are those of `random_mnist`.

Deviations: network, data, masks and training are not from the paper. How often and how
long its authors restore the inner scaling could not be looked up.

Command: python experiments/train.py --config=configs/sign_in_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("sign_in_mnist", preset)
    c.sparse.reparameterization = "sign_in"
    c.sparse.rescale_every = "938step" if not preset else "50step"
    c.sparse.rescale_until = "50%"
    return c
