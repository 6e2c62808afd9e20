r"""Masks of a ticket on other initial weights, aligned, in the small setting.

Paper: Adnan, Jain, Sharma, Krishnan, Ioannou, Sparse Training from Random
Initialization: Aligning Lottery Ticket Masks using Weight Symmetry, 2025,
arXiv:2505.05143. Network A is trained densely and pruned to masks. Network B is trained
densely from other initial weights. The units of A are permuted so that its activations
match those of B, both at the end of dense training, and the masks with them. Training
starts from the weights of B at a rewinding step, here 150, under the permuted masks,
for the rest of the steps with a schedule of its own. `--config.warm_start.align=None`
does not permute the masks (the paper's naive baseline), `weights` matches weights; with
`--config.warm_start.weights=init --config.training.duration=4ep`, training starts from
the initialization of B.

The runs of A and B come first, in directories next to that of this run:

    python experiments/train.py --config=configs/lth_cifar16.py --workdir=runs/ticket
    python experiments/train.py --config=configs/dense_cifar16.py --workdir=runs/dense \
        --config.seeds.init=1 --config.analysis.save_at="('150step',)"
    python experiments/train.py --config=configs/aligned_cifar16.py \
        --workdir=runs/aligned

With `:quick` all three need it, and the second run saves its state at '3step'.

Deviations: network, data and length are not from the paper, whose networks are up to 16
times as wide; narrow ones match less well. A's masks are those of a ticket with
rewinding; the paper prunes and trains on. The first 1,000 training examples are matched
without augmentation, in the paper all of them with it.

Command: python experiments/train.py --config=configs/aligned_cifar16.py
"""

from ml_collections import ConfigDict

from configs import dense_cifar16
from jaxsparse import stages


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 27 steps)."""
    c = dense_cifar16.recipe("aligned_cifar16", preset)
    step, rest = (150, 1410) if preset != "quick" else (3, 27)
    c.sparse.method = "static"
    c.sparse.sparsity = 0.84
    c.warm_start.run = "../dense"
    c.warm_start.weights = stages.saved_state_name(stages.TRAIN, step)
    c.warm_start.masks_run = "../ticket"
    c.warm_start.masks = stages.level_end(2, levels=2)
    c.warm_start.align = "activations"
    c.training.duration = f"{rest}step"
    return c
