"""Lottery tickets of LeNet-300-100 on MNIST.

Two protocols:

- the default is that of open_lth: SGD with learning rate 0.1, no momentum, batches of
  128, Kaiming normal weights, 20 % of the remaining weights pruned globally at each
  level, except for the output layer; 3 epochs per level (open_lth: 40);
- `:adam` is that of Frankle, Carbin, The Lottery Ticket Hypothesis, 2019,
  arXiv:1803.03635, section 2 and appendix G: Adam with learning rate 1.2e-3, batches of
  60, 50,000 steps, Glorot normal weights, pruning layer by layer with half the fraction
  for the output layer, 5,000 training examples for validation.

Deviations: levels have 3 epochs; open_lth has 40. 5,000 training examples are set aside
for validation; open_lth trains on all 60,000. An epoch therefore has 430 instead of 469
steps. Numbers of weights are exact; `--config.lottery.count_rule=open_lth` has those of
open_lth. `:adam` keeps the smaller last batch of an epoch, as open_lth does; the paper
does not specify it. The control `random_mask` has new masks with the same number of
weights in each layer, and new weights.

Measured on 2 CPU cores: see experiments/results/lth_mnist.

Command: python experiments/train.py --config=configs/lth_mnist.py
"""

from ml_collections import ConfigDict

from jaxsparse import config


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "adam" or "quick" (2 levels, few steps)."""
    return recipe("lth_mnist", preset, also=("adam",))


def recipe(name: str, preset: str, *, also: tuple[str, ...]) -> ConfigDict:
    """Returns the settings that `lth_mnist` and `swamp_mnist` share."""
    c = config.start(name, preset, also=also)
    c.replicates = 5
    c.data.name = "mnist"
    c.data.validation = 5000
    c.model.name = "lenet_300_100"
    c.lottery.controls = ("reinitialized", "random_mask")
    if preset == "adam":
        return _adam(c)
    c.data.batch_size = 128
    c.init.bias = "torch_default"
    c.schedule.learning_rate = 0.1
    c.training.duration = "3ep"
    c.evaluation.every = "100step"
    c.run.checkpoint_every = None
    c.lottery.levels = 12
    c.lottery.exclude = ("head/kernel",)
    if preset == "quick":
        c.replicates = 2
        c.training.duration = "200step"
        c.lottery.levels = 2
    return c


def _adam(c: ConfigDict) -> ConfigDict:
    c.data.batch_size = 60
    c.init.kernel = "glorot_normal"
    c.optimizer.name = "adam"
    c.schedule.learning_rate = 1.2e-3
    c.training.duration = "50000step"
    c.evaluation.every = "100step"
    c.lottery.levels = 16
    c.lottery.scope = "layer"
    c.lottery.layer_fractions = (("head/kernel", 0.1),)
    return c
