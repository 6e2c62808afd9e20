"""RigL with Erdos-Renyi-Kernel layers for ResNet-50 on ImageNet, 80 % or 90 % sparse.

Paper: Evci, Gale, Menick, Castro, Elsen, Rigging the Lottery, 2020, arXiv:1911.11134,
section 4.1: batches of 4,096 for 32,000 steps, SGD with Nesterov momentum 0.9, learning
rate 1.6 after 5 epochs of warmup, times 0.1 after 30, 70 and 90 epochs, weight decay
1e-4, label smoothing 0.1. Mask updates every 100 steps until 25,000 replace 30 % of
each layer at first and fewer later, by a cosine. ERK applies to all layers, also the
first and the last. `:90` is 90 % sparse. In the authors' table, single-length runs
reach 75.12 % at 80 % and 73.07 % at 90 %. This recipe has not been run in full here.

Images are decoded when they are needed (`data.image_size`), from files that TFDS has
prepared or from directories FOLDER/imagenet2012/{train,val}/CLASS/*.JPEG: random
resized crops (8 to 100 % of the area) and flips in training, center crops in
evaluation.

Deviations: the smaller last batch of an epoch is omitted, so that batches can be
divided over devices. The scale of the last normalization of each block starts at 0, as
in the authors' code; the head is drawn like all kernels instead of with standard
deviation 0.01, and normal distributions are not truncated. Weight decay applies to
kernels only. In evaluation, the shorter side is resized to 256 pixels and then cropped
to 224; the authors' code crops first. Random crops have a uniform logarithm of the
aspect ratio and a uniform area; TensorFlow draws a uniform aspect ratio and then a
uniform height. After ten failed attempts, the authors use the center crop of
evaluation; here it is the largest center crop. Resizing averages over the pixels that
are merged; the bicubic resizing of TensorFlow does not. Activations are bfloat16, which
is not from the paper.

Command: python experiments/train.py --config=configs/rigl_imagenet.py
(`:90` for 90 %; `:quick` and `:90_quick` for 20 steps)
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "90", "quick" or "90_quick"."""
    c = recipe("rigl_imagenet", preset, also=("90", "90_quick"))
    c.data.batch_size = 4096
    c.schedule.learning_rate = 1.6
    c.schedule.milestones = ("30ep", "70ep", "90ep")
    c.training.duration = "32000step"
    c.sparse.method = "rigl"
    c.sparse.sparsity = 0.9 if preset.startswith("90") else 0.8
    c.sparse.distribution = "erk"
    c.sparse.drop_fraction = 0.3
    c.sparse.drop_schedule = "cosine"
    c.sparse.update_every = "100step"
    c.sparse.end_step = "25000step"
    if preset.endswith("quick"):
        shorten(c)
        c.schedule.milestones = ("15step",)
    return c


def recipe(name: str, preset: str, *, also: tuple[str, ...] = ()) -> ConfigDict:
    """Returns the settings that recipes for ResNet-50 on ImageNet share.

    Args:
      name: name of the config file.
      preset: see `config.start`.
      also: see `config.start`.
    """
    c = config.start(name, preset, also=also)
    c.data.name = "imagenet2012"
    c.data.image_size = 224
    c.data.flip = True
    c.data.drop_last = True
    c.model.name = "resnet_50"
    c.model.dtype = "bfloat16"
    c.init.kernel = "lecun_normal"
    c.init.zero_init = ("*/norm3/scale",)
    c.optimizer.momentum = 0.9
    c.optimizer.nesterov = True
    c.optimizer.weight_decay = 1e-4
    c.optimizer.weight_decay_mask = "kernels"
    c.schedule.name = "step"
    c.schedule.warmup = "5ep"
    c.training.label_smoothing = 0.1
    c.evaluation.every = "5ep"
    c.run.checkpoint_every = "1ep"
    return c


def shorten(c: ConfigDict) -> None:
    """Shortens a recipe to 20 steps, with mask updates between them."""
    c.data.batch_size = 32
    c.data.test_examples = 1000
    c.schedule.warmup = "0step"
    c.training.duration = "20step"
    c.evaluation.every = "10step"
    c.sparse.update_every = "5step"
    c.sparse.end_step = "15step"
