"""RigL for a vision transformer, DeiT-S/16, on ImageNet, 60 % sparse.

Paper: Chen, Cheng, Gan, Yuan, Liu, Wang, Chasing Sparsity in Vision Transformers, 2021,
arXiv:2106.04533, "SViTE-Small" with the settings of the authors' README: ERK over all
kernels with two and four axes, also the patch embedding and the head; mask updates
every 15,000 steps until 80 % of training, which replace half of each layer at first and
fewer later, by a cosine; growth by the gradient. Training is that of DeiT (Touvron et
al., 2020, arXiv:2012.12877) for 600 epochs: AdamW with batches of 512, learning rate
5e-4 after 5 epochs of warmup with cosine decay, weight decay 0.05 on kernels, label
smoothing 0.1.

Images are decoded when they are needed, as in `rigl_imagenet`, with bicubic resizing as
in DeiT. This recipe has not been run in full here.

Deviations: the augmentation of DeiT is reduced to random resized crops and flips: no
RandAugment, color jitter, random erasing, mixup, CutMix or repeated augmentation. There
is no stochastic depth and no moving average of the weights. Without these, a
transformer of this size is expected to be less accurate than published. The learning
rate decays to 0 and starts from 0 instead of 1e-5 and 1e-6, and changes at each step
instead of each epoch. Query, key and value are separate layers; the authors' code has
one. The cosine of the drop fraction ends with the mask updates, at 80 % of training;
theirs ends with training. All kernels are drawn from the Glorot uniform distribution,
which the code of ViT uses in attention and MLP only; DeiT uses normal distributions
with standard deviation 0.02. Activations are bfloat16, which is not from the paper.

Command: python experiments/train.py --config=configs/rigl_vit_imagenet.py
(`:quick` for 20 steps)
"""

from ml_collections import ConfigDict

from configs import rigl_imagenet


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (20 steps)."""
    c = rigl_imagenet.recipe("rigl_vit_imagenet", preset)
    c.data.batch_size = 512
    c.model.name = "vit_s_16"
    c.init.kernel = "glorot_uniform"
    c.init.zero_init = ()
    c.optimizer.name = "adamw"
    c.optimizer.momentum = 0.0
    c.optimizer.nesterov = False
    c.optimizer.weight_decay = 0.05
    c.schedule.name = "cosine"
    c.schedule.learning_rate = 5e-4
    c.training.duration = "600ep"
    c.sparse.method = "rigl"
    c.sparse.sparsity = 0.6
    c.sparse.distribution = "erk"
    c.sparse.drop_fraction = 0.5
    c.sparse.drop_schedule = "cosine"
    c.sparse.update_every = "15000step"
    c.sparse.end_step = "80%"
    if preset:
        rigl_imagenet.shorten(c)
    return c
