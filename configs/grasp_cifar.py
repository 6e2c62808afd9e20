"""GraSP in ResNet-20 on CIFAR-10.

Wang, Zhang, Grosse, 2020, arXiv:2002.07376: pruned at initialization by w H g, over all
layers together, trained as `random_cifar`. Scored on 10 batches of 128;
`--config.sparse.pai_score=grasp_absolute` takes the absolute value.

Command: python experiments/train.py --config=configs/grasp_cifar.py
"""

from ml_collections import ConfigDict

from configs import random_cifar


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (1 seed, 300 steps)."""
    c = random_cifar.recipe("grasp_cifar", variant)
    c.sparse.pai_score = "grasp"
    return c
