"""The tiny recipe as a config file, with what studies change in it."""

from helpers import tiny
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns `tiny.config`; `variant` is "" or "static", with masks at 50 %."""
    fields = {"model.features": (8,), "data.validation": 0}
    if variant == "static":
        fields |= {
            "lottery.levels": 0,
            "sparse.method": "static",
            "sparse.sparsity": 0.5,
            "sparse.distribution": "global",
            "sparse.prunable": ("*kernel", "!head/kernel"),
        }
    return tiny.config(fields)
