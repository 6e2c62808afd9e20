"""Random static masks in ResNet-20 on CIFAR-10: what sparse training is compared with.

The training is that of open_lth's ResNet-20 (see `lth_cifar`): SGD with rate 0.1 and
momentum 0.9, times 0.1 after 80 and 120 of 160 epochs, weight decay 1e-4, batches of
128, random crops and flips. The other `*_cifar` recipes of sparse training differ from
this one in the section "sparse" only.

Deviations: no paper trains all these methods in this network for this long; it stands
in for the wide ResNets and ResNet-50 that they report. All 50,000 training examples are
trained on.

Command: python experiments/train.py --config=configs/random_cifar.py
"""

from ml_collections import ConfigDict

from configs import lth_cifar


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (1 seed, 300 steps)."""
    return recipe("random_cifar", variant)


def recipe(name: str, variant: str) -> ConfigDict:
    """Returns what all `*_cifar` recipes of sparse training have in common."""
    c = lth_cifar.get_config(variant)
    c.name = f"{name}_{variant}" if variant else name
    c.data.validation = 0
    c.init.norm_scale = "ones"
    c.lottery.levels = 0
    c.lottery.rewind = "0step"
    c.lottery.controls = ()
    c.lottery.control_levels = None
    c.sparse.method = "static"
    c.sparse.sparsity = 0.9
    return c
