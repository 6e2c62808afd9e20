"""Random static masks for LeNet-300-100 on MNIST, the baseline of sparse training.

Training is that of the MLP in Evci, Ioannou, Keskin, Dauphin, Gradient Flow in Sparse
Neural Networks and How Lottery Tickets Win, 2020, arXiv:2010.03533: SGD with momentum
0.9, batches of 128, a learning rate that decays from 0.2 to 0 by a cosine over 11,719
steps (25 epochs), an L2 penalty of 1e-4 |w|^2 on the kernels (a gradient of 2e-4 w),
Glorot uniform kernels, zero biases. The other `*_mnist` recipes of sparse training
differ from this one in the section `sparse`, and elsewhere where they say so.

Pixels are only divided by 255, as in the paper. If they are standardized instead,
narrow networks fail to train at this learning rate (README).

Deviations: every epoch is a permutation of the training set; the paper uses a shuffle
buffer. The momentum buffer holds gradients without the learning rate, as in PyTorch.
Masks are random, with the exact layer counts of Erdos-Renyi-Kernel; those of the paper
come from a pruned network.

Command: python experiments/train.py --config=configs/random_mnist.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    return recipe("random_mnist", preset)


def recipe(name: str, preset: str, *, also: tuple[str, ...] = ()) -> ConfigDict:
    """Returns the settings that all `*_mnist` recipes of sparse training share."""
    c = config.start(name, preset, also=also)
    c.replicates = 5
    c.data.name = "mnist"
    c.data.batch_size = 128
    c.data.normalize = "scale"
    c.model.name = "lenet_300_100"
    c.init.kernel = "glorot_uniform"
    c.optimizer.momentum = 0.9
    c.optimizer.weight_decay = 2e-4
    c.optimizer.weight_decay_mask = "kernels"
    c.schedule.name = "cosine"
    c.schedule.learning_rate = 0.2
    c.training.duration = "11719step"
    c.evaluation.every = "500step"
    c.run.checkpoint_every = None
    c.sparse.method = "static"
    c.sparse.sparsity = 0.98
    if preset == "quick":
        c.replicates = 2
        c.training.duration = "300step"
        c.evaluation.every = "100step"
    return c
