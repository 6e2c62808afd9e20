"""ToST techniques for sparse training of LeNet-300-100 on MNIST.

Paper: Jaiswal, Ma, Chen, Ding, Wang, Training Your Sparse Neural Network Better with
Any Mask, 2022, arXiv:2206.12755: soft activations that become ReLU, initial weights
rescaled by GradInit, and label smoothing, for masks of any origin. `:lenet_5` trains a
LeNet-5 without padding at 95 %, which also has ghost skips. `:baseline` and
`:lenet_5_baseline` have none of these techniques.

The paper has CIFAR and Tiny ImageNet only. From the settings of its released code are
SGD with learning rate 0.1 and momentum 0.9, learning rate times 0.1 after half and
three quarters of training, weight decay 2e-4 on all parameters, batches of 128, label
smoothing of 0.1 over the other classes in all of training, and 180 updates of the
factors of GradInit. Not from the paper are the length (4,690 steps, 10 epochs), pixels
that are only divided by 255, Kaiming normal kernels, and masks at 98 % that are drawn
over all layers except the last, which stays dense and is not counted, as in the
released code.

Deviations: the released code never anneals soft activations and ghost skips; here swish
is blended with ReLU, and ghost skips are annealed, linearly until the learning rate
first decreases. GradInit uses the gradients of the sparse network; the released code
uses those of the dense network. The reported accuracy is that at the end, not that of
the epoch with the best validation accuracy.

Other masks: see `tost_cifar`; `experiments/reproduce.py --study=tost` compares four
kinds.

Command: python experiments/train.py --config=configs/tost_mnist.py
"""

from ml_collections import ConfigDict

from jaxsparse import config

PRESETS = ("baseline", "lenet_5", "lenet_5_baseline")


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "quick" (300 steps) or of `PRESETS`."""
    c = config.start("tost_mnist", preset, also=PRESETS)
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
    if preset.startswith("lenet_5"):
        c.model.name = "lenet_5"
        c.model.padding = "VALID"
        c.sparse.sparsity = 0.95
    if "baseline" not in preset:
        help_training(c)
    if preset == "quick":
        c.replicates = 2
        c.training.duration = "300step"
        c.evaluation.every = "100step"
        c.gradinit.steps = 20
    return c


def help_training(c: ConfigDict) -> None:
    """Enables all techniques that the network supports."""
    c.tost.activation = "swish"
    c.tost.end = "50%"
    if c.model.name != "lenet_300_100":
        c.tost.skips = "convolution"
    c.gradinit.steps = 180
    c.training.label_smoothing = 0.1
    c.training.smoothing_target = "others"
