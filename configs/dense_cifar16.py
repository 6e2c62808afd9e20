"""Dense training of ResNet-8 on CIFAR-10 at 16 by 16 pixels.

Not from a paper: a small setting on real data for two CPU cores. All images of CIFAR-10
are averaged over windows of 2 by 2 pixels. A ResNet-8 with 8, 16 and 32 channels (of He
et al., 2016, arXiv:1512.03385, section 4.2, with n = 1) is trained for 4 epochs, 1,560
steps: batches of 128, random crops with 2 pixels of padding and flips, SGD with
momentum 0.9, weight decay 1e-3 on all parameters, a learning rate that decays from 0.2
to 0 by a cosine, 5 seeds. The other `*_cifar16` recipes change only what their methods
need.

Command: python experiments/train.py --config=configs/dense_cifar16.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 30 steps)."""
    return recipe("dense_cifar16", preset)


def recipe(name: str, preset: str, *, also: tuple[str, ...] = ()) -> ConfigDict:
    """Returns the settings that all `*_cifar16` recipes share.

    Args:
      name: name of the recipe.
      preset: preset of the recipe; "" for none.
      also: presets of the recipe in addition to "quick".
    """
    c = config.start(name, preset, also=also)
    c.replicates = 5
    c.data.name = "cifar10"
    c.data.downsample = 2
    c.data.batch_size = 128
    c.data.drop_last = True
    c.data.crop_pad = 2
    c.data.flip = True
    c.model.name = "resnet_8"
    c.model.width = 8
    c.optimizer.momentum = 0.9
    c.optimizer.weight_decay = 1e-3
    c.schedule.name = "cosine"
    c.schedule.learning_rate = 0.2
    c.training.duration = "4ep"
    c.run.checkpoint_every = None
    if preset == "quick":
        c.replicates = 2
        c.data.train_examples = 1280
        c.data.test_examples = 500
        c.training.duration = "30step"
    return c
