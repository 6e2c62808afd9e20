"""Gradual pruning of LeNet-5 or an MLP on MNIST, the source of the masks of a study.

Paper: Evci, Ioannou, Keskin, Dauphin, Gradient Flow in Sparse Neural Networks and How
Lottery Tickets Win, 2020, arXiv:2010.03533, with the settings of the released code: SGD
with momentum 0.9, batches of 128, a learning rate that decays from 0.05 (LeNet-5) or
0.2 (MLP 784-300-100-10) to 0 by a cosine over 11,719 steps (25 epochs), an L2 penalty
of 5e-4 |w|^2 or 1e-4 |w|^2 on the kernels (its gradient has twice that factor), Glorot
uniform kernels, pixels divided by 255. From step 3,000 to 7,000, every 100 steps, each
layer is pruned by magnitude with a cubic schedule, to 95 % or 98 %. The gradient norm
on the first 1,000 training examples is recorded every 100 steps.

`python experiments/reproduce.py --study=gradient_flow` trains all other variants of the
study with the resulting masks: tickets, training from scratch with four
initializations, RigL and SET.

Deviations: every epoch is a permutation of the training set; the authors use a shuffle
buffer. The momentum buffer holds gradients without the learning rate, as in PyTorch.
Masks are updated before the optimizer step, by the weights before it, and the gradient
norm is measured before and after that; in the authors' code masks are updated after the
step. The gradient by which RigL grows weights is that of the cross-entropy; in the
authors' code the loss includes the L2 penalty, also for pruned weights, which keep
their last values there and are 0 here.

Command: python experiments/train.py --config=configs/gradient_flow_mnist.py
(`:mlp` for the MLP; `:quick` and `:mlp_quick` for 2 seeds and 300 steps)
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "mlp", "quick" or "mlp_quick"."""
    c = config.start("gradient_flow_mnist", preset, also=("mlp", "mlp_quick"))
    mlp = preset.startswith("mlp")
    c.replicates = 5
    c.data.name = "mnist"
    c.data.batch_size = 128
    c.data.normalize = "scale"
    c.model.name = "lenet_300_100" if mlp else "lenet_5"
    c.model.padding = None if mlp else "VALID"
    c.init.kernel = "glorot_uniform"
    c.optimizer.momentum = 0.9
    c.optimizer.weight_decay = 2e-4 if mlp else 1e-3
    c.optimizer.weight_decay_mask = "kernels"
    c.schedule.name = "cosine"
    c.schedule.learning_rate = 0.2 if mlp else 0.05
    c.training.duration = "11719step"
    c.evaluation.every = "500step"
    c.sparse.method = "gmp"
    c.sparse.sparsity = 0.98 if mlp else 0.95
    c.sparse.distribution = "uniform"
    c.sparse.begin_step = "3000step"
    c.sparse.end_step = "7000step"
    c.sparse.update_every = "100step"
    c.analysis.gradient_every = "100step"
    c.run.checkpoint_every = "2000step"
    if preset.endswith("quick"):
        c.replicates = 2
        c.training.duration = "300step"
        c.evaluation.every = "150step"
        c.sparse.begin_step = "75step"
        c.sparse.end_step = "175step"
        c.sparse.update_every = "10step"
        c.analysis.gradient_every = "20step"
    return c
