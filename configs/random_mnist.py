"""Random static masks in LeNet-300-100 on MNIST: what sparse training is compared with.

The training is that of the MLP in Evci, Ioannou, Keskin, Dauphin, Gradient Flow in
Sparse Neural Networks and How Lottery Tickets Win, 2020, arXiv:2010.03533: SGD with
momentum 0.9, batches of 128, a learning rate of 0.2 that falls as a cosine to 0 over
11,719 updates (25 epochs), an L2 penalty of 1e-4 |w|^2 on the kernels (a gradient of
2e-4 w), Glorot uniform kernels, biases of zero. The other `*_mnist` recipes of sparse
training differ from this one in the section "sparse" only.

Pixels are divided by 255 and no more, as in the paper: normalized by MNIST's mean and
deviation instead, narrow networks die at this learning rate (README).

Deviations: every epoch is a permutation of the training set, where the paper streams
through a shuffle buffer; the momentum buffer holds gradients without the learning
rate, as PyTorch's does; masks are drawn with exact layer counts by
Erdos-Renyi-Kernel, where those of the paper come from a pruned network.

Command: python experiments/train.py --config=configs/random_mnist.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (2 seeds, 300 steps)."""
    return recipe("random_mnist", variant)


def recipe(name: str, variant: str) -> ConfigDict:
    """Returns what all `*_mnist` recipes of sparse training have in common."""
    c = config.start(name, variant)
    c.replicates = 5
    c.data.name = "mnist"
    c.data.batch_size = 128
    c.data.normalize = "unit"
    c.model.name = "lenet_300_100"
    c.init.kernel = "glorot_uniform"
    c.optimizer.momentum = 0.9
    c.optimizer.weight_decay = 2e-4
    c.optimizer.weight_decay_mask = "kernels"
    c.schedule.name = "cosine"
    c.schedule.learning_rate = 0.2
    c.training.duration = "11719step"
    c.evaluation.every = "500step"
    c.run.checkpoint_every = ""
    c.sparse.method = "static"
    c.sparse.sparsity = 0.98
    if variant == "quick":
        c.replicates = 2
        c.training.duration = "300step"
        c.evaluation.every = "100step"
    return c
