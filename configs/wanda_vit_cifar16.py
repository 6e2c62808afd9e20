"""Wanda: a trained vision transformer is pruned by weights and their inputs, CIFAR-10.

Paper: Sun, Liu, Bair, Kolter, A Simple and Effective Pruning Approach for Large
Language Models, 2023, arXiv:2306.11695, in the small setting of
`dense_vit_cifar16.py`: half of the weights of the blocks go, those of small magnitude
times the norm of their input, the same number for each output. The weights are those of
a dense run: set `--config.warm_start.run=RUN`, the directory of a run of
`dense_vit_cifar16`, and `--config.warm_start.weights=train/last`. Without it, initial
weights are pruned. The weights that remain are then trained for an epoch, at a tenth of
the learning rate; the paper does not train.

Deviations: network and data are not from the paper. The inputs of all layers are those
of the dense network; see also `wanda_mnist.py`.

Command: python experiments/train.py --config=configs/wanda_vit_cifar16.py
"""

from ml_collections import ConfigDict

from configs import dense_vit_cifar16, wanda_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 30 steps, 1 block)."""
    c = dense_vit_cifar16.recipe("wanda_vit_cifar16", preset)
    wanda_mnist.choose_masks(c, examples=128)
    c.sparse.prunable = dense_vit_cifar16.PRUNED
    c.schedule.learning_rate = 1e-4
    c.schedule.warmup = "0step"
    if not preset:
        c.training.duration = "1ep"
    return c
