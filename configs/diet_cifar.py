r"""Tickets of ResNet-20 on CIFAR-10, pretrained on a subset of the data.

Paper: Paul, Larsen, Ganguli, Frankle, Dziugaite, Lottery Tickets on a Data Diet:
Finding Initializations with Sparse Trainable Networks, 2022, arXiv:2206.01278. A dense
network is trained for 200 steps on the 3,200 examples that are easiest by EL2N. From
there, tickets are searched with all data: 20 levels of 20 %, 4 seeds. All else is as in
open_lth: 160 epochs, learning rate 0.1, momentum 0.9, learning rate times 0.1 at epochs
80 and 120, weight decay 1e-4, batches of 128, crops and flips (also in pretraining),
and a new order of examples at each level.

The scores are those of 16 networks after 7,800 steps (20 epochs):

    python experiments/train.py --config=configs/diet_cifar.py:scores \
        --workdir=runs/scored_cifar
    python experiments/score_data.py --run=runs/scored_cifar --score=el2n \
        --batch_norm=batch --out=runs/scores/cifar10_el2n.npz

Presets: `:all` pretrains on all data, so that pretraining does not differ from
training. For the other baselines, change `lottery.rewind` and also
`instability.start_steps`, the step at which copies of the dense network start. Other
subsets are `--config.pretraining.subset=hardest`, and `random` with
`--config.pretraining.scores=None`, of 256 to 25,600 examples (`pretraining.size`). All
of them are balanced over classes, as in the authors' code. `:scores` trains the
networks that score the examples.

`:small` is not from the paper. It is for two CPU cores: LeNet-5 on 5,000 examples, as
in `stability_cifar.py:small`, pretrained on all of them for 80 steps, which is half an
epoch as in the paper.

Deviations: scores are those of ResNet-20; the authors used ResNet-18. No examples are
set aside for validation, as in the paper. The smaller last batch of an epoch is
omitted, as in their later code, so training has 62,400 steps. Each replicate draws its
own random subset, with other random numbers than the authors'. See also `lth_cifar.py`.

Command: python experiments/train.py --config=configs/diet_cifar.py
"""

from ml_collections import ConfigDict

from configs import lth_cifar, stability_cifar
from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "all", "scores", "small" or "quick"."""
    plain = config.start("diet_cifar", preset, also=("all", "scores", "small"))
    if preset == "small":
        return _small(plain.name)
    c = lth_cifar.get_config("quick" if preset == "quick" else "")
    c.name = plain.name
    c.data.validation = 0
    c.data.reshuffle_each_level = True
    c.data.drop_last = True
    c.lottery.controls = ()
    c.lottery.control_levels = None
    if preset == "quick":
        c.data.train_examples = 2000
        c.pretraining.subset = "random"
        c.pretraining.size = 256
        return c
    c.evaluation.every = "10ep"
    if preset == "scores":
        return _scores(c)
    c.replicates = 4
    c.lottery.levels = 20
    c.lottery.rewind = "200step"
    c.instability.copies = 2  # with the original, three networks to compare
    c.instability.start_steps = ("200step",)
    c.instability.examples = 0
    if preset != "all":
        c.pretraining.subset = "easiest"
        c.pretraining.size = 3200
        c.pretraining.balanced = True
        c.pretraining.scores = "../scores/cifar10_el2n.npz"
    return c


def _scores(c: ConfigDict) -> ConfigDict:
    c.replicates = 16
    c.schedule.name = "constant"  # as before the first milestone
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
