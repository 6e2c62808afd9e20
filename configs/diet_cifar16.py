r"""Tickets of ResNet-8 on CIFAR-10 at 16 by 16 pixels, pretrained on a subset.

Paper: Paul, Larsen, Ganguli, Frankle, Dziugaite, Lottery Tickets on a Data Diet:
Finding Initializations with Sparse Trainable Networks, 2022, arXiv:2206.01278, in the
small setting of `dense_cifar16.py`. A dense network is trained for 150 steps on the
3,200 examples that are easiest by EL2N, balanced over classes. From there, the two
levels of `lth_cifar16.py` are trained with all data. Two copies of the dense network at
step 150 are trained too. `:all` pretrains on all data.

The scores are those of 10 networks after one epoch at a constant learning rate, which
`:scores` trains:

    python experiments/train.py --config=configs/diet_cifar16.py:scores \
        --workdir=runs/scored_cifar16
    python experiments/score_data.py --run=runs/scored_cifar16 --score=el2n \
        --batch_norm=batch --out=runs/scores/cifar16_el2n.npz

Deviations: network, data and length are not from the paper; it scores after 20 of 160
epochs. See also `diet_cifar.py` and `lth_cifar16.py`.

Command: python experiments/train.py --config=configs/diet_cifar16.py
(after the two commands above; `:all` and `:quick` need no scores)
"""

from ml_collections import ConfigDict

from configs import dense_cifar16, lth_cifar16


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "all", "scores" or "quick" (30 steps)."""
    also = ("all", "scores")
    if preset == "scores":
        c = dense_cifar16.recipe("diet_cifar16", preset, also=also)
        c.replicates = 10
        c.schedule.name = "constant"
        c.training.duration = "1ep"
        return c
    c = lth_cifar16.recipe("diet_cifar16", preset, also=also)
    if preset == "quick":
        c.pretraining.subset = "random"
        c.pretraining.size = 256
        return c
    c.instability.copies = 2  # with the original, three networks to compare
    c.instability.start_steps = (c.lottery.rewind,)
    c.instability.points = 11
    c.instability.examples = 2000
    if preset != "all":
        c.pretraining.subset = "easiest"
        c.pretraining.size = 3200
        c.pretraining.balanced = True
        c.pretraining.scores = "../scores/cifar16_el2n.npz"
    return c
