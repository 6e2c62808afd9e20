"""Dense training of a small vision transformer on CIFAR-10 at 16 by 16 pixels.

Not from a paper: the transformer of Dosovitskiy et al., 2020, arXiv:2010.11929, with 4
blocks, 64 channels, 4 heads and patches of 2 by 2 pixels (64 tokens), in the small
setting of `dense_cifar16.py`: images averaged to 16 by 16 pixels, batches of 128,
random crops and flips, 5 seeds. It is trained for 10 epochs with AdamW, a weight decay
of 0.05 on kernels, and a learning rate that increases to 1e-3 in the first epoch and
decays to 0 by a cosine. The other `*_vit_cifar16` recipes change only what their
methods need. They prune the kernels of the blocks, but neither patches nor head.

Command: python experiments/train.py --config=configs/dense_vit_cifar16.py
"""

from ml_collections import ConfigDict

from configs import dense_cifar16

PRUNED = ("block*/kernel",)  # leaves that sparse methods prune
NOT_PRUNED = ("patches/*", "head/*")


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 30 steps, 1 block)."""
    return recipe("dense_vit_cifar16", preset)


def recipe(name: str, preset: str) -> ConfigDict:
    """Returns the settings that all `*_vit_cifar16` recipes share.

    Args:
      name: name of the recipe.
      preset: preset of the recipe; "" for none.
    """
    c = dense_cifar16.recipe(name, preset)
    c.model.name = "vit_2"
    c.model.width = 64
    c.model.depth = 4
    c.model.heads = 4
    c.init.kernel = "glorot_uniform"
    c.optimizer.name = "adamw"
    c.optimizer.momentum = 0.0
    c.optimizer.weight_decay = 0.05
    c.optimizer.weight_decay_mask = "kernels"
    c.schedule.learning_rate = 1e-3
    c.schedule.warmup = "1ep"
    if preset == "quick":
        c.model.width = 16
        c.model.depth = 1
    else:
        c.training.duration = "10ep"
    return c
