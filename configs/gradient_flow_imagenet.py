"""Gradual pruning of ResNet-50, or RigL in VGG-16, on ImageNet.

Paper: Evci, Ioannou, Keskin, Dauphin, Gradient Flow in Sparse Neural Networks and How
Lottery Tickets Win, 2020, arXiv:2010.03533. ResNet-50, and with `:vgg` VGG-16 without
normalization, biases and hidden dense layers. Batches of 4,096; SGD with Nesterov
momentum 0.9; learning rate 1.6 after 5 epochs of warmup, times 0.1 after 30, 70 and 90
of 100 epochs; weight decay 1e-4; label smoothing 0.1. Pruned every 500 steps from step
5,000 to 25,000; RigL replaces 30 % of each layer every 100 steps until 25,000. The
first convolution is dense.

Deviations: the sparsity of the ImageNet runs is not published with the code. The 80 %
and the pruning schedule are chosen here, and for VGG-16 all of training but its length.
Learning rate schedule, warmup and label smoothing are those of the code of RigL, on
which the paper builds. There, the scale of the last normalization of each block starts
at 0 and the head is drawn from a normal distribution with standard deviation 0.01; here
only the former. Normal distributions are not truncated. The gradient norm is that of
the cross-entropy on the first 1,000 training examples, preprocessed as in evaluation,
as on MNIST; the authors' code records that of the training batch with weight decay. The
smaller last batch of an epoch is omitted. Images are decoded when they are needed, as
in `rigl_imagenet`.

Command: python experiments/train.py --config=configs/gradient_flow_imagenet.py
(`:vgg` for VGG-16; `:quick` and `:vgg_quick` for 20 steps)
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "vgg", "quick" or "vgg_quick"."""
    c = config.start("gradient_flow_imagenet", preset, also=("vgg", "vgg_quick"))
    vgg = preset.startswith("vgg")
    c.data.name = "imagenet2012"
    c.data.image_size = 224
    c.data.batch_size = 4096
    c.data.drop_last = True
    c.data.flip = True
    c.model.name = "vgg_16" if vgg else "resnet_50"
    c.model.dtype = "bfloat16"
    c.init.kernel = "kaiming_normal" if vgg else "lecun_normal"
    c.init.zero_init = () if vgg else ("*/norm3/scale",)
    c.optimizer.momentum = 0.9
    c.optimizer.nesterov = True
    c.optimizer.weight_decay = 1e-4
    c.optimizer.weight_decay_mask = "kernels"
    c.schedule.name = "step"
    c.schedule.learning_rate = 1.6
    c.schedule.warmup = "5ep"
    c.schedule.milestones = ("30ep", "70ep", "90ep")
    c.training.duration = "100ep"
    c.training.label_smoothing = 0.1
    c.evaluation.every = "5ep"
    c.sparse.sparsity = 0.8
    c.sparse.distribution = "uniform"
    c.sparse.first_layer_dense = True
    c.sparse.update_every = "100step"
    c.sparse.end_step = "25000step"
    c.analysis.gradient_every = "500step"
    if vgg:
        c.schedule.learning_rate = 0.04
        c.sparse.method = "rigl"
        c.sparse.drop_schedule = "constant"
        c.analysis.at_mask_updates = True
    else:
        c.sparse.method = "gmp"
        c.sparse.begin_step = "5000step"
        c.sparse.update_every = "500step"
    if preset.endswith("quick"):
        c.data.batch_size = 32
        c.training.duration = "20step"
        c.schedule.warmup = "0step"
        c.schedule.milestones = ("15step",)
        c.evaluation.every = "10step"
        c.sparse.update_every = "5step"
        c.sparse.end_step = "15step"
        c.sparse.begin_step = None if vgg else "5step"
        c.analysis.gradient_every = "5step"
    return c
