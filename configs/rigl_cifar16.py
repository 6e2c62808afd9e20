"""RigL for ResNet-8 on CIFAR-10 at 16 by 16 pixels.

Paper: Evci, Gale, Menick, Castro, Elsen, Rigging the Lottery, 2020, arXiv:1911.11134,
in the small setting of `dense_cifar16.py`: 95 % of the weights are pruned, with
Erdos-Renyi-Kernel layers; until three quarters of training, mask updates replace 30 %
of the weights at first and fewer later, by a cosine.

Deviations: network, data and length are not from the paper. Masks are updated every 20
steps; the paper has 100.

Command: python experiments/train.py --config=configs/rigl_cifar16.py
"""

from ml_collections import ConfigDict

from configs import dense_cifar16


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 30 steps)."""
    c = recipe("rigl_cifar16", preset)
    c.sparse.method = "rigl"
    c.sparse.end_step = "75%"
    return c


def recipe(name: str, preset: str) -> ConfigDict:
    """Returns the settings that `*_cifar16` recipes of changing masks share.

    Args:
      name: name of the recipe.
      preset: preset of the recipe; "" for none.
    """
    c = dense_cifar16.recipe(name, preset)
    c.sparse.sparsity = 0.95
    c.sparse.distribution = "erk"
    # 58 updates until three quarters of 1,560 steps. The 100 steps of papers, which
    # train 20 times as long or longer, would be 11.
    c.sparse.update_every = "20step" if preset != "quick" else "5step"
    return c
