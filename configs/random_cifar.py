"""Random static masks for ResNet-20 on CIFAR-10, the baseline of sparse training.

Training is that of ResNet-20 in open_lth (see `lth_cifar`): SGD with learning rate 0.1
and momentum 0.9, learning rate times 0.1 after 80 and 120 of 160 epochs, weight decay
1e-4, batches of 128, random crops and flips. The other `*_cifar` recipes of sparse
training differ from this one in the section `sparse` only.

Deviations: no paper trains all these methods in this network for this long. It takes
the place of the wide ResNets and ResNet-50 in the papers. All 50,000 training examples
are used for training.

Command: python experiments/train.py --config=configs/random_cifar.py
"""

from ml_collections import ConfigDict

from configs import lth_cifar


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (1 seed, 300 steps)."""
    return recipe("random_cifar", preset)


def recipe(name: str, preset: str) -> ConfigDict:
    """Returns the settings that all `*_cifar` recipes of sparse training share."""
    c = lth_cifar.get_config(preset)
    c.name = f"{name}_{preset}" if preset else name
    c.data.validation = 0
    c.init.norm_scale = "ones"
    c.lottery.levels = 0
    c.lottery.rewind = "0step"
    c.lottery.controls = ()
    c.lottery.control_levels = None
    c.sparse.method = "static"
    c.sparse.sparsity = 0.9
    return c
