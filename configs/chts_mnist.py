"""CHTs or CHTss of LeNet-300-100 on MNIST.

Paper: Zhang, Cerretti, Zhao, Wu, Liao, Michieli, Cannistraci, Brain network science
modelling of sparse neural networks enables Transformers and LLMs to perform as fully
connected, 2025, arXiv:2501.19107: the weights that stay are drawn by their relative
importance, those that grow by the topology of the masks; with the preset "decay", the
sparsity rises from 50 % by a sigmoid (CHTss). The last layer is dense, as in the
authors' code. Training is that of `random_mnist`.

Deviations: network, data and length are not from the paper, and initial masks are
random. See also `transforms.chts`.

Command: python experiments/train.py --config=configs/chts_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "decay" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("chts_mnist", preset, also=("decay",))
    c.sparse.method = "chts"
    c.sparse.update_every = "500step" if preset != "quick" else "50step"
    c.sparse.end_step = "75%"
    c.sparse.last_layer_dense = True
    if preset == "decay":
        c.sparse.initial_sparsity = 0.5
        c.sparse.schedule = "sigmoid"
    return c
