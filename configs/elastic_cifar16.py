r"""Elastic tickets: a ticket of ResNet-14 is stretched to ResNet-20, small setting.

Paper: Chen, Cheng, Wang, Gan, Liu, Wang, The Elastic Lottery Ticket Hypothesis, 2021,
arXiv:2103.16547: masks and rewound weights of a ticket are transferred to another depth
by replicating or dropping residual blocks, except for the first one of each stage. Here
each stage of ResNet-14 has one such block, and of ResNet-20 two; with more blocks,
`--config.warm_start.depth=append` repeats them in another order. Training starts at the
rewinding step of the ticket and takes the remaining steps.

The ticket comes first, in a directory next to that of this run; any residual network of
the same widths will do, also a deeper one:

    python experiments/train.py --config=configs/lth_cifar16.py \
        --config.model.name=resnet_14 --workdir=runs/ticket14
    python experiments/train.py --config=configs/elastic_cifar16.py \
        --workdir=runs/elastic

With `:quick` both need it.

Deviations: network, data and length are not from the paper, whose networks are wider,
and the learning rate begins its schedule anew.

Command: python experiments/train.py --config=configs/elastic_cifar16.py
"""

from ml_collections import ConfigDict

from configs import dense_cifar16
from jaxsparse import stages


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 27 steps)."""
    c = dense_cifar16.recipe("elastic_cifar16", preset)
    c.model.name = "resnet_20"
    c.sparse.method = "static"
    c.sparse.sparsity = 0.84
    c.warm_start.run = "../ticket14"
    c.warm_start.weights = "rewind"
    c.warm_start.masks = stages.level_end(2, levels=2)
    c.warm_start.depth = "interpolate"
    c.training.duration = "1410step" if preset != "quick" else "27step"
    return c
