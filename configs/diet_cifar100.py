"""Lottery tickets on a data diet: ResNet-32 on CIFAR-100.

Paper: Paul, Larsen, Ganguli, Frankle, Dziugaite, Lottery Tickets on a Data Diet:
Finding Initializations with Sparse Trainable Networks, 2022, arXiv:2206.01278. The
dense network is trained for 400 steps on the 3,200 examples that are easiest by EL2N,
32 of each class, and tickets are searched from there with all of the data: 20 levels, 4
replicates, SGD with rate 0.1 and momentum 0.9, times 0.1 after 80 and 120 of 160
epochs, weight decay 1e-4 on everything, batches of 128, random crops and flips, gamma
of BatchNorm uniform.

Variants: "" pre-trains on the easiest examples; `:all` on all, the baseline; `:scores`
trains the 16 dense networks, for 7,800 steps each, whose scores say what is easy;
`:quick` is 1 level of a narrow network, on random examples and without scores. Other
subsets are fields, as in `--config.pretraining.subset=hardest`, or `=random` with
`--config.pretraining.scores=`, for which the paper has sizes from 256 to 6,400.

Deviations: scores are means over 16 networks after 7,800 steps as theirs are, of this
ResNet-32 with the rate and weight decay above, where theirs are of ResNet-50; images
are normalized by CIFAR-100's channels, and what theirs are normalized by is not known;
they are cropped, then flipped, where open_lth flips first; each replicate's order of
examples goes on from the rewinding step and is another at each level, as open_lth's
without a seed, but can be repeated; counts are exact,
`--config.lottery.count_rule=open_lth` gives theirs. That 400 steps were theirs is
inferred from their baselines of 0, 400 and 800, and that classes are balanced from the
configurations that they published. As there, no examples are set aside for validation.

Score file, once:
  python experiments/train.py --config=configs/diet_cifar100.py:scores
    --workdir=runs/scores/cifar100
  python experiments/score_data.py --run=runs/scores/cifar100 --score=el2n
    --batch_norm=batch --out=runs/scores/cifar100_el2n.npz

Command: python experiments/train.py --config=configs/diet_cifar100.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "", "all", "scores" or "quick"."""
    c = config.start("diet_cifar100", variant, also=("all", "scores"))
    c.replicates = 4
    c.data.name = "cifar100"
    c.data.crop_pad = 4
    c.data.flip = True
    c.data.order = "fresh"
    c.model.name = "resnet_32"
    c.init.norm_scale = "uniform"
    c.init.bias = "torch_default"
    c.optimizer.momentum = 0.9
    c.optimizer.weight_decay = 1e-4
    if variant == "scores":
        return _scores(c)
    c.schedule.name = "step"
    c.schedule.milestones = ("80ep", "120ep")
    c.training.duration = "160ep"
    c.lottery.levels = 20
    c.lottery.rewind = "400step"
    c.instability.copies = 2  # with their parent, three networks to compare
    c.instability.start_steps = ("400step",)
    if variant == "all":
        return c
    c.pretraining.subset = "easiest"
    c.pretraining.size = 3200
    c.pretraining.scores = "../scores/cifar100_el2n.npz"
    c.pretraining.balanced = True
    return _quick(c) if variant == "quick" else c


def _scores(c: ConfigDict) -> ConfigDict:
    c.replicates = 16
    c.training.duration = "7800step"  # 20 of their epochs, before the rate falls
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
    c.pretraining.scores = ""
    c.run.checkpoint_every = "20step"
    return c
