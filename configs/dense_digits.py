"""Dense training of LeNet-300-100 on the embedded digits.

Command: python experiments/train.py --config=configs/dense_digits.py
"""

from ml_collections import ConfigDict

from configs import lth_digits


def get_config(preset: str = "") -> ConfigDict:
    """Returns `lth_digits` without pruning; `preset` is "" or "quick"."""
    c = lth_digits.get_config(preset)
    c.name = "dense_digits"
    c.lottery.levels = 0
    c.lottery.controls = ()
    return c
