"""AC/DC: compressed and decompressed phases in turns, LeNet-300-100 on MNIST.

Paper: Peste, Iofinova, Vladu, Alistarh, AC/DC: Alternating Compressed/DeCompressed
Training of Deep Neural Networks, 2021, arXiv:2106.12379. After a dense tenth of
training, sparse and dense phases of a twentieth each follow one another; in the last
fifth, the network stays sparse. Masks keep the largest weights of all layers together.

Deviations: network, data and training are those of `random_mnist`. The lengths of
phases, as parts of training, are close to those of the authors' code on ImageNet, whose
last dense phase is twice as long as the others and leaves 15 of 100 epochs for sparse
training.

Command: python experiments/train.py --config=configs/ac_dc_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("ac_dc_mnist", preset)
    c.sparse.method = "ac_dc"
    c.sparse.begin_step = "10%"
    c.sparse.end_step = "80%"
    c.sparse.update_every = "5%"
    return c
