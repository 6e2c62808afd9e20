"""Tickets of ResNet-20 on CIFAR-10, pretrained with label noise.

Paper: Paul, Larsen, Ganguli, Frankle, Dziugaite, Lottery Tickets on a Data Diet:
Finding Initializations with Sparse Trainable Networks, 2022, arXiv:2206.01278. 10 % or
50 % of the training labels are wrong in pretraining only; tickets are trained on the
right labels. All else is as in `diet_cifar.py:all`.

`--config.pretraining.label_noise=0.5` has the other fraction. For wrong labels in all
of training, set `--config.pretraining.label_noise=0.0 --config.data.label_noise=0.1`.

Deviations: how the authors selected and changed labels is not known. Here each selected
label becomes one of the other classes, all with equal probability;
`--config.data.label_noise_by=permute` permutes the selected labels, as in the code of
Paul et al. (2021).

Command: python experiments/train.py --config=configs/diet_noise_cifar.py
"""

from ml_collections import ConfigDict

from configs import diet_cifar
from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick"."""
    plain = config.start("diet_noise_cifar", preset)
    c = diet_cifar.get_config("quick" if preset == "quick" else "all")
    c.name = plain.name
    c.pretraining = config.default().pretraining
    c.pretraining.label_noise = 0.1
    return c
