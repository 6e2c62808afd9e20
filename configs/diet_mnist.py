r"""Tickets of LeNet-300-100 on MNIST, from pre-training on a part of the data.

The protocol of Paul, Larsen, Ganguli, Frankle, Dziugaite, Lottery Tickets on a Data
Diet, 2022, arXiv:2206.01278, who have nothing on MNIST: a dense network trains for some
updates on the examples that are easiest by EL2N, and tickets are sought with all data
from there. The network trains as in open_lth: SGD with rate 0.1, batches of 128, 20 %
of the weights left pruned at each level but for the output layer.

The scores are those of 10 networks after one epoch:

    python experiments/train.py --config=configs/diet_mnist.py:scores \
        --workdir=runs/scored_mnist
    python experiments/score_data.py --run=runs/scored_mnist --score=el2n \
        --out=runs/scores/mnist_el2n.npz

`:all` pre-trains on all data.

Deviations: settings are ours: 10 epochs, a rewinding step of 240, about half an epoch
as theirs, and 3,840 examples, of which theirs has as large a part.

Command: python experiments/train.py --config=configs/diet_mnist.py
"""

from ml_collections import ConfigDict

from configs import lth_mnist
from jaxsparse import config


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "", "all", "scores" or "quick"."""
    plain = config.start("diet_mnist", variant, also=("all", "scores"))
    c = lth_mnist.get_config("quick" if variant == "quick" else "")
    c.name = plain.name
    c.data.validation = 0
    c.data.reshuffle_each_level = True
    c.lottery.controls = ()
    if variant == "quick":
        c.lottery.rewind = "20step"
        c.pretraining.subset = "random"
        c.pretraining.size = 512
        return c
    if variant == "scores":
        c.replicates = 10
        c.training.duration = "1ep"
        c.lottery.levels = 0
        return c
    c.replicates = 3
    c.training.duration = "10ep"
    c.evaluation.every = "1ep"
    c.lottery.rewind = "240step"
    c.instability.copies = 2  # with their parent, three networks to compare
    c.instability.start_steps = ("240step",)
    if variant != "all":
        c.pretraining.subset = "easiest"
        c.pretraining.size = 3840
        c.pretraining.scores = "../scores/mnist_el2n.npz"
    return c
