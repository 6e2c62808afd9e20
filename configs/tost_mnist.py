"""ToST's aids for sparse training in LeNet-300-100 on MNIST.

Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse Neural Network Better with Any Mask,
2022, arXiv:2206.12755: soft neurons that become ReLU, initial weights rescaled layer by
layer, and smoothed labels, with a mask that may come from anywhere. `:lenet_5` has a
LeNet-5 without padding at 95 %, where ghost skips can act too; `:baseline` and
`:lenet_5_baseline` have no aids.

The paper trains on CIFAR and Tiny ImageNet only; from the settings of its released code
are SGD with rate 0.1 and momentum 0.9, times 0.1 after half and three quarters of the
training, weight decay 2e-4 on everything, batches of 128, labels smoothed by 0.1 over
the other classes all through, and 180 updates of the factors of rescaling. Ours are the
length (4,690 updates, 10 epochs), pixels divided by 255 and no more, Kaiming normal
kernels, and masks at 98 %, drawn over all layers together but the last: as in the
released code, which keeps it dense, and counts sparsity without it.

Deviations: the released code never fades a ghost; here swish is blended with ReLU, and
ghost skips fade, linearly until the learning rate first falls. Rescaling uses the
gradients of the sparse network, where the released code has those of the dense one.
What is reported is the accuracy at the end, and not that of the epoch with the best
validation accuracy.

Any mask: see `tost_cifar`; `experiments/reproduce.py --study=tost` tries four kinds.

Command: python experiments/train.py --config=configs/tost_mnist.py
"""

from ml_collections import ConfigDict

from jaxsparse import config

VARIANTS = ("baseline", "lenet_5", "lenet_5_baseline")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "", "quick" (300 steps) or of `VARIANTS`."""
    c = config.start("tost_mnist", variant, also=VARIANTS)
    c.replicates = 5
    c.data.name = "mnist"
    c.data.batch_size = 128
    c.data.normalize = "scale"
    c.model.name = "lenet_300_100"
    c.optimizer.momentum = 0.9
    c.optimizer.weight_decay = 2e-4
    c.schedule.name = "step"
    c.schedule.learning_rate = 0.1
    c.schedule.milestones = ("50%", "75%")
    c.training.duration = "4690step"
    c.evaluation.every = "469step"
    c.run.checkpoint_every = None
    c.sparse.method = "static"
    c.sparse.sparsity = 0.98
    c.sparse.distribution = "global"
    c.sparse.prunable = ("*kernel", "!head/kernel")
    if variant.startswith("lenet_5"):
        c.model.name = "lenet_5"
        c.model.padding = "VALID"
        c.sparse.sparsity = 0.95
    if "baseline" not in variant:
        help_training(c)
    if variant == "quick":
        c.replicates = 2
        c.training.duration = "300step"
        c.evaluation.every = "100step"
        c.gradinit.steps = 20
    return c


def help_training(c: ConfigDict) -> None:
    """Switches on all aids that the network has a place for."""
    c.tost.activation = "swish"
    c.tost.end = "50%"
    if c.model.name != "lenet_300_100":
        c.tost.skips = "convolution"
    c.gradinit.steps = 180
    c.training.label_smoothing = 0.1
    c.training.smoothing_target = "others"
