"""Apportionment: dividing a whole number of weights among layers, exactly."""

import math
from fractions import Fraction


def divide(
    target: int, sizes: list[int], weights: list[Fraction], whole: list[bool]
) -> list[int]:
    """Divides a count in proportion to weights, within what each layer can have.

    A layer whose share exceeds its size gets its size, one whose share is below 1 gets
    1, and the others divide what is left in proportion to their weights. What is then
    no whole number is rounded by largest remainder, ties to the earlier layer.

    Args:
      target: what the counts sum to, exactly.
      sizes: of the layers.
      weights: proportions, above 0 where a layer is not empty.
      whole: which layers get their size, whatever their weight.

    Returns:
      The counts: 0 for empty layers, at least 1 for others, at most the size.

    Raises:
      ValueError: if the target is below what whole layers and one weight in each other
        layer need, or above the sum of the sizes.
    """
    least = [
        size if fixed else min(1, size)
        for size, fixed in zip(sizes, whole, strict=True)
    ]
    if not sum(least) <= target <= sum(sizes):
        raise ValueError(
            f"target: expected {sum(least)} to {sum(sizes)} weights, got {target}"
        )
    fixed = {i: Fraction(sizes[i]) for i, is_whole in enumerate(whole) if is_whole}
    while True:
        shares = _shares(target, weights, fixed)
        above = {i: s - sizes[i] for i, s in shares.items() if s > sizes[i]}
        below = {i: least[i] - s for i, s in shares.items() if s < least[i]}
        if not above and not below:
            break
        # Fixing one side moves the others' shares to the other side, so that only the
        # side that is further off in total is certain.
        excess = sum(above.values()) - sum(below.values())
        if excess >= 0:
            fixed |= {i: Fraction(sizes[i]) for i in above}
        if excess <= 0:
            fixed |= {i: Fraction(least[i]) for i in below}
    shares |= fixed
    return _rounded([shares[i] for i in range(len(sizes))])


def _shares(
    target: int, weights: list[Fraction], fixed: dict[int, Fraction]
) -> dict[int, Fraction]:
    """Divides what fixed layers leave among the others, by weight."""
    free = [i for i in range(len(weights)) if i not in fixed]
    left = target - sum(fixed.values())
    weighed = sum(weights[i] for i in free)
    return {i: left * weights[i] / (weighed or 1) for i in free}


def _rounded(shares: list[Fraction]) -> list[int]:
    """Rounds shares of an integer total by largest remainder, ties to the earlier."""
    counts = [math.floor(share) for share in shares]
    left = int(sum(shares)) - sum(counts)
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - shares[i])
    for i in by_remainder[:left]:
        counts[i] += 1
    return counts
