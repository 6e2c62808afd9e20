"""NTK-SAP for LeNet-300-100 on MNIST.

Paper: Wang, Li, Sun, NTK-SAP: Improving neural network pruning by aligning training
dynamics, 2023, arXiv:2304.02840: pruning at initialization by the influence of a
connection on the trace of the neural tangent kernel, in 20 iterations as in the
authors' sample script, with five batches of random inputs and weights each. Training is
that of `random_mnist`.

Deviations: network, data and length are not from the paper. See also `scores.ntk_sap`.

Command: python experiments/train.py --config=configs/ntk_sap_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("ntk_sap_mnist", preset)
    c.sparse.pai_score = "ntk_sap"
    c.sparse.score_iterations = 20
    c.sparse.score_batches = 5
    return c
