"""ToST techniques for sparse training of ResNet-18 on Tiny ImageNet.

Paper: Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse Neural Network Better with
Any Mask, 2022, arXiv:2206.12755. It names the dataset, but the released code does not
contain it. All settings of `tost_cifar` are kept; crops, flips and normalization are
those of Tanaka, Kunin, Yamins, Ganguli, 2020, arXiv:2006.05467. The images take 1.2 GB;
where a device has less than four times as much memory, they are sharded over devices or
streamed from the host (`run.data_placement`). `:baseline` has none of the techniques.

Deviations: those of `tost_cifar`. The test set is the published validation split,
because the labels of the test split are not public.

Command: python experiments/train.py --config=configs/tost_tiny_imagenet.py
"""

from ml_collections import ConfigDict

from configs import tost_cifar, tost_cifar100


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "baseline" or "quick" (200 steps)."""
    c = tost_cifar.recipe("tost_tiny_imagenet", preset)
    c.data.name = "tiny_imagenet"
    c.data.mean = c.data.std = None
    tost_cifar100.wide(c, preset)
    if preset == "quick":
        c.run.steps_per_call = 20
    return c
