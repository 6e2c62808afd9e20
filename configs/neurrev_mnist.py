"""NeurRev of LeNet-300-100 on MNIST.

Paper: Li, Yin, Ji, Niu, Qin, Ren, Guo, Liu, Ma, NeurRev: Train Better Sparse Neural
Network Practically via Neuron Revitalization, ICLR 2024: mask updates also drop
negative weights that have changed least, which keep neurons at an output of zero.
Training is that of `random_mnist`.

Deviations: the paper was not accessible to us beyond its abstract and reviews; network,
data, length and all settings of the mask updates are ours, mostly those of
`rigl_erk_mnist`. See also `transforms.neurrev`.

Command: python experiments/train.py --config=configs/neurrev_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("neurrev_mnist", preset)
    c.sparse.method = "neurrev"
    c.sparse.update_every = "500step" if preset != "quick" else "50step"
    c.sparse.end_step = "75%"
    return c
