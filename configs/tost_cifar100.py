"""ToST's aids for sparse training in ResNet-18 on CIFAR-100.

`tost_cifar` with another network and another dataset, which the released code
normalizes by the same numbers: Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse
Neural Network Better with Any Mask, 2022, arXiv:2206.12755. ResNet-18 has a 3x3 stem
and 64 to 512 channels. `:baseline` has no aids.

Deviations: those of `tost_cifar`; the code has ghost skips as here in this network.

Command: python experiments/train.py --config=configs/tost_cifar100.py
"""

from ml_collections import ConfigDict

from configs import tost_cifar


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "", "baseline" or "quick" (200 steps)."""
    c = tost_cifar.recipe("tost_cifar100", variant)
    c.data.name = "cifar100"
    wide(c, variant)
    return c


def wide(c: ConfigDict, variant: str) -> None:
    """Gives a recipe a ResNet-18, of which few steps are a quick variant."""
    c.model.name = "cifar_resnet_18"
    if variant == "quick":
        c.model.features = (8, 16, 32, 64)
