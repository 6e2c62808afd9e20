"""Dense training of a small decoder on the text of Python's own help.

Not from a paper: a language model for two CPU cores. A decoder of 2 blocks, 64 channels
and 4 heads with rotary positions (Su et al., 2021, arXiv:2104.09864), RMSNorm and gated
MLPs (Shazeer, 2020, arXiv:2002.05202) predicts the next byte from up to 64 bytes. It is
trained for 2,000 steps (5 epochs) with batches of 16 windows: AdamW with a weight decay
of 0.1 on kernels, a learning rate that increases to 3e-3 in 100 steps and decays to 0
by a cosine, 3 seeds. Gradients are not clipped. The other `*_python_docs` recipes
change only what their methods need. They prune the kernels of the blocks, but neither
the embedding nor the head.

Command: python experiments/train.py --config=configs/dense_python_docs.py
"""

from ml_collections import ConfigDict

from jaxsparse import config

PRUNED = ("block*/kernel",)  # leaves that sparse methods prune
NOT_PRUNED = ("embed/*", "head/*")


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 20 steps, 1 block)."""
    return recipe("dense_python_docs", preset)


def recipe(name: str, preset: str) -> ConfigDict:
    """Returns the settings that all `*_python_docs` recipes share.

    Args:
      name: name of the recipe.
      preset: preset of the recipe; "" for none.
    """
    c = config.start(name, preset)
    c.replicates = 3
    c.data.name = "python_docs"
    c.data.context = 64
    c.data.batch_size = 16
    c.data.drop_last = True
    c.model.name = "decoder"
    c.model.width = 64
    c.model.depth = 2
    c.model.heads = 4
    c.init.kernel = "lecun_normal"
    c.optimizer.name = "adamw"
    c.optimizer.weight_decay = 0.1
    c.optimizer.weight_decay_mask = "kernels"
    c.schedule.name = "cosine"
    c.schedule.learning_rate = 3e-3
    c.schedule.warmup = "100step"
    c.training.duration = "2000step"
    c.evaluation.every = "500step"
    c.run.checkpoint_every = None
    if preset == "quick":
        c.replicates = 2
        c.data.train_examples = 320
        c.data.test_examples = 64
        c.model.width = 16
        c.model.depth = 1
        c.schedule.warmup = "5step"
        c.training.duration = "20step"
        c.evaluation.every = "10step"
    return c
