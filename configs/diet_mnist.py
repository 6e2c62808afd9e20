r"""Tickets of LeNet-300-100 on MNIST, pretrained on a subset of the data.

The protocol of Paul, Larsen, Ganguli, Frankle, Dziugaite, Lottery Tickets on a Data
Diet: Finding Initializations with Sparse Trainable Networks, 2022, arXiv:2206.01278,
which has no experiment on MNIST. A dense network is trained for some steps on the
examples that are easiest by EL2N, and tickets are searched with all data from there.
Training is as in open_lth: SGD with learning rate 0.1, batches of 128, 20 % of the
remaining weights pruned at each level, except for the output layer.

The scores are those of 10 networks after one epoch:

    python experiments/train.py --config=configs/diet_mnist.py:scores \
        --workdir=runs/scored_mnist
    python experiments/score_data.py --run=runs/scored_mnist --score=el2n \
        --out=runs/scores/mnist_el2n.npz

Presets: `:all` pretrains on all data. `:scores` trains the networks that score the
examples.

Deviations: these settings are not from the paper: 10 epochs, a rewinding step of 240,
which is about half an epoch as in the paper, and 3,840 examples, the same fraction of
the data as in the paper.

Command: python experiments/train.py --config=configs/diet_mnist.py
"""

from ml_collections import ConfigDict

from configs import lth_mnist
from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "all", "scores" or "quick"."""
    plain = config.start("diet_mnist", preset, also=("all", "scores"))
    c = lth_mnist.get_config("quick" if preset == "quick" else "")
    c.name = plain.name
    c.data.validation = 0
    c.data.reshuffle_each_level = True
    c.lottery.controls = ()
    if preset == "quick":
        c.lottery.rewind = "20step"
        c.pretraining.subset = "random"
        c.pretraining.size = 512
        return c
    if preset == "scores":
        c.replicates = 10
        c.training.duration = "1ep"
        c.lottery.levels = 0
        return c
    c.replicates = 3
    c.training.duration = "10ep"
    c.evaluation.every = "1ep"
    c.lottery.rewind = "240step"
    c.instability.copies = 2  # with the original, three networks to compare
    c.instability.start_steps = ("240step",)
    if preset != "all":
        c.pretraining.subset = "easiest"
        c.pretraining.size = 3840
        c.pretraining.scores = "../scores/mnist_el2n.npz"
    return c
