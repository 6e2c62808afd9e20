"""SWAMP for LeNet-300-100 on MNIST: tickets from the mean of several particles.

Paper: Choi, Lee, Nam, Lee, Sparse Weight Averaging with Multiple Particles for
Iterative Magnitude Pruning, 2023, arXiv:2305.14852: at every level, four networks train
from the same ticket with different orders of the examples, and their mean is pruned.
Training is that of `lth_mnist`. With the preset "soup", levels start from the mean
weights at the full learning rate (learning rate rewinding), as in Zimmer, Spiegel,
Pokutta, Sparse Model Soups, 2023, arXiv:2306.16788; `analysis.soups` averages the
networks of the last level. With the preset "signs", every level also trains two
controls of Gadhikar, Burkholz, Masks, Signs, And Learning Rate Rewinding, 2024,
arXiv:2402.19262, which have the masks of the ticket with new magnitudes or new signs;
training takes three times as long. SWAMP has no such controls.

Deviations: network, data and length are not from the papers, and weights are not
averaged over the last epochs (stochastic weight averaging) of each particle.

Command: python experiments/train.py --config=configs/swamp_mnist.py
"""

from ml_collections import ConfigDict

from configs import lth_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "soup", "signs" or "quick" (few steps)."""
    c = lth_mnist.recipe("swamp_mnist", preset, also=("soup", "signs"))
    c.replicates = 8 if preset != "quick" else 4
    c.lottery.particles = 4 if preset != "quick" else 2
    c.lottery.controls = (
        ("random_magnitudes", "random_signs") if preset == "signs" else ()
    )
    if preset == "soup":
        c.lottery.retrain = "learning_rate_rewind"
    return c
