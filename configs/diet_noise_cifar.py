"""Pre-training with wrong labels: tickets of ResNet-20 on CIFAR-10.

Paper: Paul, Larsen, Ganguli, Frankle, Dziugaite, Lottery Tickets on a Data Diet, 2022,
arXiv:2206.01278: of all training labels 10 % or 50 % are wrong in pre-training only;
tickets train on the right ones. The recipe is that of `diet_cifar.py:all`.

`--config.pretraining.label_noise=0.5` for the other fraction. To have wrong labels all
through, `--config.pretraining.label_noise=0.0 --config.data.label_noise=0.1`.

Deviations: how the authors chose and changed the labels is not known; here each label
chosen becomes one of the others, uniformly (`--config.data.label_noise_by=permute`
exchanges the labels of those chosen, as in the code of Paul et al., 2021).

Command: python experiments/train.py --config=configs/diet_noise_cifar.py
"""

from ml_collections import ConfigDict

from configs import diet_cifar
from jaxsparse import config


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick"."""
    plain = config.start("diet_noise_cifar", variant)
    c = diet_cifar.get_config("quick" if variant == "quick" else "all")
    c.name = plain.name
    c.pretraining = config.default().pretraining
    c.pretraining.label_noise = 0.1
    return c
