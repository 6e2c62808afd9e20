"""Apportionment: exact division of an integer number of weights among layers."""

import math
from fractions import Fraction


def divide(
    target: int, sizes: list[int], weights: list[Fraction], dense: list[bool]
) -> list[int]:
    """Divides a count among layers in proportion to weights, within the layers' sizes.

    A layer whose share exceeds its size gets its size, and a layer whose share is below
    1 gets 1. The other layers divide the rest in proportion to their weights.
    Fractional shares are rounded by the method of largest remainder; ties go to the
    earlier layer.

    Args:
      target: sum of the returned counts, from the minimum described under Raises to the
        sum of the sizes.
      sizes: numbers of weights of the layers, 0 or more.
      weights: proportions of the layers' shares, exact; above 0 for layers that are not
        empty.
      dense: True for layers that get all their weights, regardless of their proportion.

    Returns:
      One count per layer, with the sum `target`: 0 for empty layers, and from 1 to the
      size for others.

    Raises:
      ValueError: if the target is below the minimum, which is the sizes of the dense
        layers and one weight in each other layer that is not empty; or if it is above
        the sum of the sizes.
    """
    minimum = [
        size if fixed else min(1, size)
        for size, fixed in zip(sizes, dense, strict=True)
    ]
    if not sum(minimum) <= target <= sum(sizes):
        raise ValueError(
            f"target: expected {sum(minimum)} to {sum(sizes)} weights, got {target}"
        )
    fixed = {i: Fraction(sizes[i]) for i, is_dense in enumerate(dense) if is_dense}
    while True:
        shares = _shares(target, weights, fixed)
        above = {i: s - sizes[i] for i, s in shares.items() if s > sizes[i]}
        below = {i: minimum[i] - s for i, s in shares.items() if s < minimum[i]}
        if not above and not below:
            break
        # Fixing the layers above their size gives the others more, so that some below
        # their minimum may no longer be so, and conversely. Only the side with the
        # larger total excess is certain to stay out of range.
        excess = sum(above.values()) - sum(below.values())
        if excess >= 0:
            fixed |= {i: Fraction(sizes[i]) for i in above}
        if excess <= 0:
            fixed |= {i: Fraction(minimum[i]) for i in below}
    shares |= fixed
    return _rounded([shares[i] for i in range(len(sizes))])


def _shares(
    target: int, weights: list[Fraction], fixed: dict[int, Fraction]
) -> dict[int, Fraction]:
    """Divides the rest that fixed layers leave among the others, by weight."""
    open_layers = [i for i in range(len(weights)) if i not in fixed]
    remaining = target - sum(fixed.values())
    total_weight = sum(weights[i] for i in open_layers)
    # If all open layers are empty, their weights may sum to 0, and so do their shares.
    return {i: remaining * weights[i] / (total_weight or 1) for i in open_layers}


def _rounded(shares: list[Fraction]) -> list[int]:
    """Rounds shares with an integer sum by largest remainder, ties to the earlier."""
    counts = [math.floor(share) for share in shares]
    remaining = int(sum(shares)) - sum(counts)
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i])
    for i in by_remainder[:remaining]:
        counts[i] += 1
    return counts
