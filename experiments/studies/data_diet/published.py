"""Published: the accuracies of Paul et al. (2022), and ours beside them."""

from typing import Any

import numpy as np
import pandas as pd

from experiments.studies import tables
from experiments.studies.data_diet import variants
from experiments.studies.data_diet.variants import label

Found = dict[str, Any]
WHOLE = 50_000  # examples
NEAR = 0.05  # levels are compared whose remaining weights differ by at most 5 %
# Mean test accuracy of tickets of ResNet-20 on CIFAR-10 in percent, by the percentage
# of weights remaining: on all data, and on 3,200 examples.
LEVELS: dict[float, dict[str, float]] = {
    41.0: {"k0": 90.20, "k1": 90.82, "k2": 91.31},
    26.2: {"k0": 89.39, "k1": 90.27, "k2": 91.19},
    16.8: {"k0": 88.50, "k1": 90.17, "k2": 91.03},
    10.7: {"k0": 87.17, "k1": 89.62, "k2": 90.50},
    6.9: {"k0": 85.41, "k1": 88.10, "k2": 89.76},
}
USUAL = {
    41.0: {"easy": 91.08, "random": 90.81, "hard": 90.34},
    26.2: {"easy": 91.00, "random": 90.69, "hard": 89.86},
    16.8: {"easy": 90.92, "random": 90.36, "hard": 88.82},
    10.7: {"easy": 90.32, "random": 90.16, "hard": 87.59},
    6.9: {"easy": 89.38, "random": 89.23, "hard": 86.06},
}
# At 16.8 % of the weights, by the number of examples out of 50,000.
SIZES = {
    "easy": (89.62, 90.17, 90.61, 90.73, 90.92, 90.77, 90.90, 90.74),
    "random": (89.68, 89.85, 90.40, 90.30, 90.36, 89.73, 90.12, 90.17),
    "hard": (89.09, 88.70, 88.84, 88.91, 88.82, 88.96, 89.28, 89.64),
}


def gain(variant: str, examples: int, remaining: float) -> float | None:
    """Returns the published gain of a variant over 0 updates, in points.

    Args:
      variant: "k1", "k2", or a kind of subset and its size.
      examples: number of examples in all of the data.
      remaining: percentage of the weights, one of `LEVELS`.

    Returns:
      The gain; None if it is not published.
    """
    base, kind = LEVELS[remaining], variant.partition("_")[0]
    if variant in base:
        return base[variant] - base["k0"]
    if kind not in SIZES:
        return None
    size = int(variant.partition("_")[2]) * WHOLE / examples
    if size == variants.SIZES["full"]["cifar"].usual:
        return USUAL[remaining][kind] - base["k0"]
    sizes = variants.SIZES["full"]["cifar"].subsets
    if size in sizes and remaining == 16.8:
        return SIZES[kind][sizes.index(int(size))] - base["k0"]
    return None


def show(found: Found) -> pd.DataFrame:
    """Formats the gains over 0 updates, with the published ones in brackets.

    Args:
      found: from `variants.arrange`.
    """
    if "k0" not in found["variants"]:
        return pd.DataFrame()
    none, rows = found["variants"]["k0"], []
    for variant, entry in found["variants"].items():
        if variant == "k0":
            continue
        row = {"Pre-training": label(variant)}
        for remaining in LEVELS:
            away = np.abs(np.asarray(entry["remaining"]) - remaining)
            place = int(np.argmin(away))
            if away[place] > NEAR * remaining:
                continue
            kept = f"{entry['remaining'][place]:.1f} % remaining"
            if round(entry["remaining"][place], 1) != remaining:
                kept += f" (published at {remaining} %)"
            ours, base = (np.asarray(e["ticket"])[:, place] for e in (entry, none))
            words = tables.mean(pd.Series(ours - base))
            theirs = gain(variant, entry["examples"], remaining)
            words += "" if theirs is None else f" ({theirs:+.2f})"
            row[kept] = words
        rows.append(row)
    return pd.DataFrame(rows)
