"""Weight-sparse training of a small decoder on the text of Python's own help.

Paper: Gao, Rajaram, Coxon, Govande, Baker, Mossing, Weight-sparse transformers have
interpretable circuits, 2025, arXiv:2511.13653, in the small setting of
`dense_python_docs.py`: after each step of AdamW, the largest tenth of every matrix is
kept, also of the embedding and the head; this sparsity is reached in the first half of
training, linearly.

Deviations: network, data and length are not from the paper, whose networks are much
sparser and larger. Gradients are not clipped.

Command: python experiments/train.py --config=configs/weight_sparse_python_docs.py
"""

from ml_collections import ConfigDict

from configs import dense_python_docs, weight_sparse_mnist


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 20 steps, 1 block)."""
    c = dense_python_docs.recipe("weight_sparse_python_docs", preset)
    weight_sparse_mnist.anneal(c)
    c.sparse.sparsity = 0.9
    return c
