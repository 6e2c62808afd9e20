r"""Tickets of ResNet-32 on CIFAR-100, pretrained on a subset of the data.

Paper: Paul, Larsen, Ganguli, Frankle, Dziugaite, Lottery Tickets on a Data Diet:
Finding Initializations with Sparse Trainable Networks, 2022, arXiv:2206.01278. A dense
network is trained for 400 steps on the 3,200 examples that are easiest by EL2N, 32 of
each class. From there, tickets are searched with all data: 20 levels, 4 replicates, SGD
with learning rate 0.1 and momentum 0.9, learning rate times 0.1 after 80 and 120 of 160
epochs, weight decay 1e-4 on all parameters, batches of 128, random crops and flips,
uniform initial scale of BatchNorm.

Presets: `:all` pretrains on all examples, as a baseline. `:scores` trains the 16 dense
networks, for 7,800 steps each, that score the examples. `:quick` has 1 level of a
narrow network and pretrains on random examples, without scores. Other subsets are
`--config.pretraining.subset=hardest`, and `random` with
`--config.pretraining.scores=None`; the paper has sizes from 256 to 6,400.

Deviations: scores are means over 16 networks after 7,800 steps, as in the paper, but of
this ResNet-32 with the learning rate and weight decay above; theirs are of ResNet-50.
Images are standardized by the channels of CIFAR-100; the normalization of the paper is
not known. Images are cropped, then flipped; open_lth flips first. The order of examples
of each replicate continues at the rewinding step and changes at each level, as in
open_lth without a seed, but can be repeated. Numbers of weights are exact;
`--config.lottery.count_rule=open_lth` has those of the paper. The 400 steps are
inferred from the baselines of 0, 400 and 800 steps, and the balanced classes from the
published configurations. No examples are set aside for validation, as in the paper.

Score file, made once:

    python experiments/train.py --config=configs/diet_cifar100.py:scores \
        --workdir=runs/scores/cifar100
    python experiments/score_data.py --run=runs/scores/cifar100 --score=el2n \
        --batch_norm=batch --out=runs/scores/cifar100_el2n.npz

Command: python experiments/train.py --config=configs/diet_cifar100.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "all", "scores" or "quick"."""
    c = config.start("diet_cifar100", preset, also=("all", "scores"))
    c.replicates = 4
    c.data.name = "cifar100"
    c.data.crop_pad = 4
    c.data.flip = True
    c.data.reshuffle_each_level = True
    c.model.name = "resnet_32"
    c.init.norm_scale = "uniform"
    c.init.bias = "torch_default"
    c.optimizer.momentum = 0.9
    c.optimizer.weight_decay = 1e-4
    if preset == "scores":
        return _scores(c)
    c.schedule.name = "step"
    c.schedule.milestones = ("80ep", "120ep")
    c.training.duration = "160ep"
    c.lottery.levels = 20
    c.lottery.rewind = "400step"
    c.instability.copies = 2  # with the original, three networks to compare
    c.instability.start_steps = ("400step",)
    if preset == "all":
        return c
    c.pretraining.subset = "easiest"
    c.pretraining.size = 3200
    c.pretraining.scores = "../scores/cifar100_el2n.npz"
    c.pretraining.balanced = True
    return _quick(c) if preset == "quick" else c


def _scores(c: ConfigDict) -> ConfigDict:
    c.replicates = 16
    c.training.duration = "7800step"  # 20 of their epochs, before the first milestone
    return c


def _quick(c: ConfigDict) -> ConfigDict:
    c.replicates = 1
    c.data.test_examples = 1000
    c.model.width = 4
    c.training.duration = "60step"
    c.schedule.milestones = ("40step", "50step")
    c.evaluation.every = "30step"
    c.lottery.levels = 1
    c.lottery.rewind = "20step"
    c.instability.start_steps = ("20step",)
    c.instability.points = 3
    c.instability.examples = 1000
    c.pretraining.subset = "random"
    c.pretraining.size = 400
    c.pretraining.scores = None
    c.run.checkpoint_every = "20step"
    return c
