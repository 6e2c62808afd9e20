"""ToST's aids for sparse training in ResNet-32 on CIFAR-10.

Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse Neural Network Better with Any Mask,
2022, arXiv:2206.12755: soft neurons and skips that leave, initial weights rescaled
layer by layer, and smoothed labels, with a mask that may come from anywhere.
`:baseline` has no aids.

As the defaults of the released code: 182 epochs, SGD with rate 0.1 and momentum 0.9,
times 0.1 after epochs 90 and 135, weight decay 2e-4 on everything, batches of 128,
5,000 examples for validation, random crops and flips, its numbers for normalization,
masks of convolutions only, labels smoothed by 0.1 over the other classes all through,
180 updates of the factors of rescaling.

Deviations: the code chooses those 5,000 as the first, ours are drawn; it never fades a
ghost, and has skips in ResNet-18 and -34 only: here swish is blended with ReLU, and
skips around every convolution fade, linearly until the learning rate first falls.
Rescaling uses the gradients of the sparse network, where the code has those of the
dense one (`--config.gradinit.mask_gradients=false`). Kaiming normal kernels, random
masks at 95 % and 3 seeds are ours. What is reported is the accuracy at the end, where the code
takes the epoch of the best validation accuracy; records have the epoch of the least
validation loss besides. Scores of masks are those of the network without ghosts.

Any mask: `--config.sparse.pai_score=snip` (grasp, magnitude, or synflow with
`--config.sparse.score_iterations=100`); or one of an earlier run, such as a ticket, by
`--config.warm_start.run=../FOLDER --config.warm_start.masks=level_08/ticket/last
--config.warm_start.weights=init --config.sparse.distribution=`.

Command: python experiments/train.py --config=configs/tost_cifar.py
"""

from ml_collections import ConfigDict

from configs import tost_mnist
from jaxsparse import config


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "", "baseline" or "quick" (200 steps)."""
    c = recipe("tost_cifar", variant)
    c.data.name = "cifar10"
    return c


def recipe(name: str, variant: str) -> ConfigDict:
    """Returns what the recipes of ToST on colored images have in common."""
    c = config.start(name, variant, also=("baseline",))
    c.replicates = 3
    c.data.batch_size = 128
    c.data.validation = 5000
    c.data.augment = "published"
    c.data.mean = (0.4914, 0.4822, 0.4465)
    c.data.std = (0.2023, 0.1994, 0.2010)
    c.model.name = "resnet_32"
    c.optimizer.momentum = 0.9
    c.optimizer.weight_decay = 2e-4
    c.schedule.name = "step"
    c.schedule.learning_rate = 0.1
    c.schedule.milestones = ("90ep", "135ep")
    c.training.duration = "182ep"
    c.sparse.method = "static"
    c.sparse.sparsity = 0.95
    c.sparse.distribution = "global"
    c.sparse.prunable = ("*kernel", "!head/kernel")
    if variant != "baseline":
        tost_mnist.help_training(c)
        c.tost.end = "90ep"
    if variant == "quick":
        c.replicates = 1
        c.data.validation = 1000
        c.data.test_examples = 2000
        c.training.duration = "200step"
        c.schedule.milestones = ("100step", "150step")
        c.tost.end = "100step"
        c.evaluation.every = "100step"
        c.gradinit.steps = 3
        c.run.checkpoint_every = "50step"
    return c
