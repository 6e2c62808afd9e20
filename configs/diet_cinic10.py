r"""Tickets of ResNet-56 on CINIC-10, pretrained on a subset of the data.

Paper: Paul, Larsen, Ganguli, Frankle, Dziugaite, Lottery Tickets on a Data Diet:
Finding Initializations with Sparse Trainable Networks, 2022, arXiv:2206.01278, with the
settings of their code. A dense network is trained for 400 steps on the 25,600 examples
that are easiest by EL2N, of any class. From there, tickets are searched with all
180,000 examples outside of the test set: 16 levels, 4 replicates, SGD with learning
rate 0.1 and momentum 0.9, learning rate times 0.1 at 15,625 and 23,440 of 31,250 steps,
weight decay 1e-4 on all parameters, batches of 256 without the smaller last one, random
crops and flips, uniform initial scale of BatchNorm.

Presets: `:all` pretrains on all examples, as a baseline. `:scores` trains the 10 dense
networks, for 8,000 steps each, that score the examples. `:quick` has 1 level of a
narrow network and pretrains on random examples, without scores. Other subsets are
`--config.pretraining.subset=hardest`, and `random` with
`--config.pretraining.scores=None`; the paper has sizes from 12,800 to 102,400. Its
other length of pretraining is `--config.lottery.rewind=200step` with
`--config.instability.start_steps="('200step',)"`.

Deviations: scores are means over 10 networks after 8,000 steps, as in the paper, with
the learning rate and weight decay above; those of the paper are not known. That the
splits train and valid are joined is inferred from the number of steps. The order of
examples is different for each replicate and continues at the rewinding step; that of
the paper is the same for all replicates and starts again. Activations are float32; the
paper seems to use mixed precision. No examples are set aside for validation, as in the
paper: training uses the split valid.

Data: unpack CINIC-10.tar.gz (Darlow et al., 2018, arXiv:1810.03505) into the directory
cinic10 of `--config.data.dir`, as train, valid and test.

Score file, made once:

    python experiments/train.py --config=configs/diet_cinic10.py:scores \
        --workdir=runs/scores/cinic10
    python experiments/score_data.py --run=runs/scores/cinic10 --score=el2n \
        --batch_norm=batch --out=runs/scores/cinic10_el2n.npz

Command: python experiments/train.py --config=configs/diet_cinic10.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "all", "scores" or "quick"."""
    c = config.start("diet_cinic10", preset, also=("all", "scores"))
    c.replicates = 4
    c.data.name = "cinic10"
    c.data.batch_size = 256
    c.data.drop_last = True
    c.data.crop_pad = 4
    c.data.flip = True
    c.model.name = "resnet_56"
    c.init.norm_scale = "uniform"
    c.init.bias = "torch_default"
    c.optimizer.momentum = 0.9
    c.optimizer.weight_decay = 1e-4
    c.evaluation.every = "5ep"
    if preset == "scores":
        return _scores(c)
    c.schedule.name = "step"
    c.schedule.milestones = ("15625step", "23440step")
    c.training.duration = "31250step"
    c.lottery.levels = 16
    c.lottery.rewind = "400step"
    c.instability.copies = 2  # with the original, three networks to compare
    c.instability.start_steps = ("400step",)
    if preset == "all":
        return c
    c.pretraining.subset = "easiest"
    c.pretraining.size = 25600
    c.pretraining.scores = "../scores/cinic10_el2n.npz"
    return _quick(c) if preset == "quick" else c


def _scores(c: ConfigDict) -> ConfigDict:
    c.replicates = 10
    c.training.duration = "8000step"  # before the first milestone
    return c


def _quick(c: ConfigDict) -> ConfigDict:
    c.replicates = 1
    c.data.batch_size = 64
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
    c.pretraining.size = 512
    c.pretraining.scores = None
    c.run.checkpoint_every = "20step"
    return c
