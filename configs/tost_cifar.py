r"""ToST techniques for sparse training of ResNet-32 on CIFAR-10.

Paper: Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse Neural Network Better with
Any Mask, 2022, arXiv:2206.12755: soft activations and ghost skips that are annealed
away, initial weights rescaled by GradInit, and label smoothing, for masks of any
origin. `:baseline` has none of these techniques.

The settings are the defaults of the released code: 182 epochs, SGD with learning rate
0.1 and momentum 0.9, learning rate times 0.1 after epochs 90 and 135, weight decay 2e-4
on all parameters, batches of 128, 5,000 examples for validation, random crops and
flips, the same mean and standard deviation of channels, masks for convolutions only,
label smoothing of 0.1 over the other classes in all of training, 180 updates of the
factors of GradInit.

Deviations: the validation examples are drawn at random; the code uses the first 5,000.
The code never anneals soft activations and ghost skips, and has ghost skips in
ResNet-18 and -34 only. Here swish is blended with ReLU, and ghost skips around every
convolution are annealed, linearly until the learning rate first decreases. GradInit
uses the gradients of the sparse network; the code uses those of the dense network
(`--config.gradinit.mask_gradients=false`). Kaiming normal kernels, random masks at 95 %
and 3 seeds are not from the paper. The reported accuracy is that at the end; the code
reports that of the epoch with the best validation accuracy. Records also contain the
epoch with the lowest validation loss. Pruning scores are those of the network without
ghost skips.

Other masks: `--config.sparse.pai_score=snip` (or grasp, magnitude, or synflow with
`--config.sparse.score_iterations=100`); or those of an earlier run, such as a ticket:

    --config.warm_start.run=../FOLDER --config.warm_start.weights=init \
    --config.warm_start.masks=level_08/ticket/last --config.sparse.distribution=None

Command: python experiments/train.py --config=configs/tost_cifar.py
"""

from ml_collections import ConfigDict

from configs import tost_mnist
from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "baseline" or "quick" (200 steps)."""
    c = recipe("tost_cifar", preset)
    c.data.name = "cifar10"
    return c


def recipe(name: str, preset: str) -> ConfigDict:
    """Returns the settings that the recipes of ToST on color images share."""
    c = config.start(name, preset, also=("baseline",))
    c.replicates = 3
    c.data.batch_size = 128
    c.data.validation = 5000
    c.data.augment = "standard"
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
    if preset != "baseline":
        tost_mnist.help_training(c)
        c.tost.end = "90ep"
    if preset == "quick":
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
