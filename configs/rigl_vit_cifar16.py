"""RigL for a small vision transformer on CIFAR-10 at 16 by 16 pixels.

Paper: Evci, Gale, Menick, Castro, Elsen, Rigging the Lottery, 2020, arXiv:1911.11134,
in the small setting of `dense_vit_cifar16.py`: 80 % of the weights are pruned, with
Erdos-Renyi layers; until three quarters of training, mask updates replace 30 % of the
weights at first and fewer later, by a cosine.

Deviations: network, data and length are not from the paper. Masks are updated every 50
steps; the paper has 100.

Command: python experiments/train.py --config=configs/rigl_vit_cifar16.py
"""

from ml_collections import ConfigDict

from configs import gmp_vit_cifar16


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 30 steps, 1 block)."""
    c = gmp_vit_cifar16.recipe("rigl_vit_cifar16", preset)
    c.sparse.method = "rigl"
    c.sparse.distribution = "erk"
    return c
