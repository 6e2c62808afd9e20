"""RigL in a vision transformer, DeiT-S/16, on ImageNet, 60 % sparse.

Chen, Cheng, Gan, Yuan, Liu, Wang, Chasing Sparsity in Vision Transformers, 2021,
arXiv:2106.04533, "SViTE-Small" as the authors' README has it: ERK over all kernels of
two and four axes, the patches and the head too, every 15,000 updates up to 80 % of
training, half of each layer at first and less by a cosine, grown by the gradient.
Trained as DeiT (Touvron et al. 2020, arXiv:2012.12877) but for 600 epochs: AdamW in
batches of 512, a rate of 5e-4 after 5 epochs of warm-up that falls by a cosine, weight
decay 0.05 of kernels, labels smoothed by 0.1.

Images are decoded as they are asked for, as in `rigl_imagenet`, resized bicubically as
in DeiT. Here it has not been run.

Deviations: of DeiT's augmentation there are random parts and flips only: no
RandAugment, color jitter, random erasing, mixup or cutmix, no repeated augmentation.
There is no stochastic depth and no moving average of the weights. Without these a
transformer of this size is expected to fall short of what is published. The rate falls
to 0 and warms up from 0, not 1e-5 and 1e-6, and changes every step, theirs once an
epoch. Query, key and value are layers of their
own, of which the authors' code makes one. The cosine of what is dropped ends with the
changes, at 80 % of training; theirs at its end. All kernels are drawn from Glorot's
uniform distribution, as ViT's code has it in attention and MLP only, where DeiT has
normals of deviation 0.02. Ours to choose: activations
in bfloat16.

Command: python experiments/train.py --config=configs/rigl_vit_imagenet.py
(`:quick` for 20 updates)
"""

from ml_collections import ConfigDict

from configs import rigl_imagenet


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (20 updates)."""
    c = rigl_imagenet.recipe("rigl_vit_imagenet", variant)
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
    if variant:
        rigl_imagenet.shorten(c)
    return c
