"""ToST techniques for sparse training of ResNet-18 on CIFAR-100.

As `tost_cifar` with another network and dataset, for which the released code uses the
same mean and standard deviation of channels: Jaiswal, Ma, Chen, Ding, Wang, Training
Your Sparse Neural Network Better with Any Mask, 2022, arXiv:2206.12755. ResNet-18 has a
3x3 stem and 64 to 512 channels. `:baseline` has none of the techniques.

Deviations: those of `tost_cifar`; in this network the released code has the same ghost
skips.

Command: python experiments/train.py --config=configs/tost_cifar100.py
"""

from ml_collections import ConfigDict

from configs import tost_cifar


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "baseline" or "quick" (200 steps)."""
    c = tost_cifar.recipe("tost_cifar100", preset)
    c.data.name = "cifar100"
    wide(c, preset)
    return c


def wide(c: ConfigDict, preset: str) -> None:
    """Sets the network to ResNet-18; the preset "quick" has few steps."""
    c.model.name = "cifar_resnet_18"
    if preset == "quick":
        c.model.features = (8, 16, 32, 64)
