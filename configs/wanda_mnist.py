"""Wanda: a trained LeNet-300-100 is pruned by weights and their inputs, on MNIST.

Paper: Sun, Liu, Bair, Kolter, A Simple and Effective Pruning Approach for Large
Language Models, 2023, arXiv:2306.11695: half of the weights go, those of small
magnitude times the norm of their input, the same number for each output. The weights
are those of a dense run: set `--config.warm_start.run=RUN`, the directory of a run of
`dense_mnist`, and `--config.warm_start.weights=train/last`. Without it, initial weights
are pruned. The weights that remain are then trained as in `random_mnist`, at a tenth of
its learning rate; the paper does not train.

Deviations: network and data are not from the paper. The inputs of all layers are those
of the dense network. `prune.wanda` prunes layer by layer, and `prune.obs` (SparseGPT)
and `prune.alps` (ALPS) also update the weights, which a config cannot, since scores
only choose masks: `python experiments/one_shot.py RUN` compares all of them on a run.

Command: python experiments/train.py --config=configs/wanda_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("wanda_mnist", preset)
    choose_masks(c, examples=1000)
    c.schedule.learning_rate = 0.02
    return c


def choose_masks(c: ConfigDict, *, examples: int) -> None:
    """Chooses half of the weights of each output by Wanda.

    Args:
      c: the recipe, which is changed.
      examples: number of training examples whose inputs count.
    """
    c.sparse.method = "static"
    c.sparse.pai_score = "wanda"
    c.sparse.sparsity = 0.5
    c.sparse.distribution = "uniform"
    c.sparse.structure = "fan_in"
    c.sparse.score_batches = 1
    c.sparse.score_batch_size = examples
