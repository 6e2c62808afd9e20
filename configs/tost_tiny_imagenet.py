"""ToST's aids for sparse training in ResNet-18 on Tiny ImageNet.

Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse Neural Network Better with Any Mask,
2022, arXiv:2206.12755, name the dataset; their released code has none of it. All that
`tost_cifar` has is kept, and crops, flips and normalization are those of Tanaka, Kunin,
Yamins, Ganguli, 2020, arXiv:2006.05467. The images are 1.2 GB: where a device has less
than four times as much memory, they are divided over devices, or streamed from the host
(`run.data_placement`).
`:baseline` has no aids.

Deviations: those of `tost_cifar`. The test set is the published validation split, as
the labels of the test split are not public.

Command: python experiments/train.py --config=configs/tost_tiny_imagenet.py
"""

from ml_collections import ConfigDict

from configs import tost_cifar, tost_cifar100


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "", "baseline" or "quick" (200 steps)."""
    c = tost_cifar.recipe("tost_tiny_imagenet", variant)
    c.data.name = "tiny_imagenet"
    c.data.mean, c.data.std = (), ()
    tost_cifar100.wide(c, variant)
    if variant == "quick":
        c.run.steps_per_call = 20
    return c
