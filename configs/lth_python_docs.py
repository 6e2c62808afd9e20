"""Lottery tickets of a small decoder on the text of Python's own help, with rewinding.

Paper: Frankle, Dziugaite, Roy, Carbin, Linear Mode Connectivity and the Lottery Ticket
Hypothesis, 2020, arXiv:1912.05671, in the small setting of `dense_python_docs.py`:
three levels, each of which prunes 54 % of the remaining weights (10 % remain), and
weights rewound to step 100, when the learning rate is at its peak.

Deviations: network, data and length are not from the paper, which prunes 20 % at each
level.

Command: python experiments/train.py --config=configs/lth_python_docs.py
"""

from ml_collections import ConfigDict

from configs import dense_python_docs


def get_config(preset: str = "") -> ConfigDict:
    """Returns the recipe; `preset` is "" or "quick" (2 seeds, 20 steps, 1 block)."""
    c = dense_python_docs.recipe("lth_python_docs", preset)
    c.lottery.levels = 3 if preset != "quick" else 1
    c.lottery.fraction = 0.536  # (1 - 0.536) ** 3 is 0.1
    c.lottery.exclude = dense_python_docs.NOT_PRUNED
    c.lottery.rewind = "100step" if preset != "quick" else "5step"
    return c
