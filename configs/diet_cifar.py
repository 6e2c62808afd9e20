r"""Tickets of ResNet-20 on CIFAR-10, from pre-training on a part of the data.

Paper: Paul, Larsen, Ganguli, Frankle, Dziugaite, Lottery Tickets on a Data Diet, 2022,
arXiv:2206.01278: a dense network trains for 200 updates on the 3,200 examples that are
easiest by EL2N, and tickets are sought with all data from there, 20 levels of 20 %, 4
seeds; the rest as open_lth: 160 epochs, rate 0.1 and momentum 0.9, times 0.1 at epochs
80 and 120, weight decay 1e-4, batches of 128, crops and flips in pre-training too, each
level in an order of its own.

The scores are those of 16 networks after 7,800 updates, 20 epochs:

    python experiments/train.py --config=configs/diet_cifar.py:scores \
        --workdir=runs/scored_cifar
    python experiments/score_data.py --run=runs/scored_cifar --score=el2n \
        --batch_norm=batch --out=runs/scores/cifar10_el2n.npz

`:all` pre-trains on all data, which differs from training in nothing. For the other
baselines, change `lottery.rewind` and with it `instability.start_steps`, from which
children of the dense network train. Other subsets are
`--config.pretraining.subset=hardest`, and
`random` with `--config.pretraining.scores=None`, of 256 to 25,600 examples
(`pretraining.size`), all with as many of each class, as in the authors' code.

`:small` is ours, for two CPU cores: LeNet-5 on 5,000 examples, as in
`stability_cifar.py:small`, pre-trained on all of them for 80 updates, half an epoch as
theirs.

Deviations: scores are of ResNet-20, where the authors scored by ResNet-18; no examples
are set aside for validation, as in the paper. The last batch of an epoch, which is
smaller, is left out, as in their later code, so that there are 62,400 updates. Each
replicate draws random subsets of its own, by other numbers than theirs. The rest as
`lth_cifar.py`.

Command: python experiments/train.py --config=configs/diet_cifar.py
"""

from ml_collections import ConfigDict

from configs import lth_cifar, stability_cifar
from jaxsparse import config


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "", "all", "scores", "small" or "quick"."""
    plain = config.start("diet_cifar", variant, also=("all", "scores", "small"))
    if variant == "small":
        return _small(plain.name)
    c = lth_cifar.get_config("quick" if variant == "quick" else "")
    c.name = plain.name
    c.data.validation = 0
    c.data.reshuffle_each_level = True
    c.data.drop_last = True
    c.lottery.controls = ()
    c.lottery.control_levels = None
    if variant == "quick":
        c.data.train_examples = 2000
        c.pretraining.subset = "random"
        c.pretraining.size = 256
        return c
    c.evaluation.every = "10ep"
    if variant == "scores":
        return _scores(c)
    c.replicates = 4
    c.lottery.levels = 20
    c.lottery.rewind = "200step"
    c.instability.copies = 2  # with their parent, three networks to compare
    c.instability.start_steps = ("200step",)
    c.instability.examples = 0
    if variant != "all":
        c.pretraining.subset = "easiest"
        c.pretraining.size = 3200
        c.pretraining.balanced = True
        c.pretraining.scores = "../scores/cifar10_el2n.npz"
    return c


def _scores(c: ConfigDict) -> ConfigDict:
    c.replicates = 16
    c.schedule.name = "constant"  # as it is before the first milestone
    c.schedule.milestones = ()
    c.training.duration = "7800step"
    c.lottery.levels = 0
    c.lottery.rewind = "0step"
    return c


def _small(name: str) -> ConfigDict:
    c = stability_cifar.get_config("small")
    c.name = name
    c.lottery.rewind = "80step"
    c.instability.copies = 2
    c.instability.start_steps = ("80step",)
    c.instability.levels = (0,)
    c.instability.compare_levels = False
    return c
