"""Weight-sparse training of a small vision transformer on CIFAR-10.

Paper: Gao, Rajaram, Coxon, Govande, Baker, Mossing, Weight-sparse transformers have
interpretable circuits, 2025, arXiv:2511.13653, in the small setting of
`dense_vit_cifar16.py`: after each step of AdamW, the largest tenth of every kernel of
the blocks is kept; this sparsity is reached in the first half of training, linearly.

Deviations: network, data and length are not from the paper, whose networks are much
sparser and larger. The paper also prunes embeddings, biases and the head. Gradients are
not clipped.

Command: python experiments/train.py --config=configs/weight_sparse_vit_cifar16.py
"""

from ml_collections import ConfigDict

from configs import dense_vit_cifar16, weight_sparse_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 30 steps, 1 block)."""
    c = dense_vit_cifar16.recipe("weight_sparse_vit_cifar16", preset)
    weight_sparse_mnist.anneal(c)
    c.sparse.prunable = dense_vit_cifar16.PRUNED
    c.sparse.sparsity = 0.9
    return c
