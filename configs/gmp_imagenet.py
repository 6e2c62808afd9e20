"""Gradual magnitude pruning (GMP) of ResNet-50 on ImageNet, to 80 % or 90 %.

Paper: Gale, Elsen, Hooker, The State of Sparsity in Deep Neural Networks, 2019,
arXiv:1902.09574, with the cubic schedule of Zhu, Gupta, To Prune, or Not to Prune,
2017, arXiv:1710.01878. The settings are those of the best run that the authors
released: the same sparsity for every layer, also the first and the last, pruned every
2,000 steps from 40,000 to 100,000 (`:90`: to 76,000); label smoothing 0.1; batches of
1,024 for 128,000 steps; SGD with Nesterov momentum 0.9; learning rate 0.4 after 5
epochs of warmup, times 0.1 after 30, 60 and 80 epochs; weight decay 1e-4. Their
accuracies are 75.58 % and 73.91 %. This recipe has not been run in full here.

Images are decoded when they are needed, as in `rigl_imagenet`.

Deviations: those of `rigl_imagenet`. The length of the released runs is taken from the
code, which evaluates them at step 128,000.

Command: python experiments/train.py --config=configs/gmp_imagenet.py
(`:90` for 90 %; `:quick` and `:90_quick` for 20 steps)
"""

from ml_collections import ConfigDict

from configs import rigl_imagenet


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "", "90", "quick" or "90_quick"."""
    c = rigl_imagenet.recipe("gmp_imagenet", preset, also=("90", "90_quick"))
    sparser = preset.startswith("90")
    c.data.batch_size = 1024
    c.schedule.learning_rate = 0.4
    c.schedule.milestones = ("30ep", "60ep", "80ep")
    c.training.duration = "128000step"
    c.sparse.method = "gmp"
    c.sparse.sparsity = 0.9 if sparser else 0.8
    c.sparse.distribution = "uniform"
    c.sparse.schedule = "cubic"
    c.sparse.begin_step = "40000step"
    c.sparse.end_step = "76000step" if sparser else "100000step"
    c.sparse.update_every = "2000step"
    if preset.endswith("quick"):
        rigl_imagenet.shorten(c)
        c.schedule.milestones = ("15step",)
        c.sparse.begin_step = "5step"
    return c
