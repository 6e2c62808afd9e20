"""RigL for a small decoder on the text of Python's own help.

Paper: Evci, Gale, Menick, Castro, Elsen, Rigging the Lottery, 2020, arXiv:1911.11134,
in the small setting of `dense_python_docs.py`: 80 % of the weights are pruned, with
Erdos-Renyi layers; until three quarters of training, mask updates replace 30 % of the
weights at first and fewer later, by a cosine.

Deviations: network, data and length are not from the paper. Masks are updated every 20
steps; the paper has 100.

Command: python experiments/train.py --config=configs/rigl_python_docs.py
"""

from ml_collections import ConfigDict

from configs import gmp_python_docs


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 20 steps, 1 block)."""
    c = gmp_python_docs.recipe("rigl_python_docs", preset)
    c.sparse.method = "rigl"
    c.sparse.distribution = "erk"
    return c
