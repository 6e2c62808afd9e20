"""Slow and obvious versions of what jaxsparse does fast, in numpy."""

import functools
import math

import numpy as np


@functools.cache
def order(number: int) -> int:
    """Maps an integer below 2**31 to its place in the order that breaks ties."""
    for shift, root in ((16, 3), (14, 5)):
        digits = math.isqrt(root << 64) % 2**32 | 1  # of the root, after the point
        number ^= number >> shift
        number = number * digits % 2**31
    return number ^ (number >> 15)


def orders(size: int, first: int = 0) -> np.ndarray:
    """Lists the places of `size` positions that begin with `first`."""
    return np.array([order(first + place) for place in range(size)], np.int64)


def select(
    scores: list[np.ndarray],
    count: int,
    within: list[np.ndarray] | None = None,
    ties: str = "spread",
    first: int = 0,
) -> list[np.ndarray]:
    """Sorts all weights: numbers before NaN, high before low, equal ones by `order`."""
    if within is None:
        within = [np.ones(score.shape, bool) for score in scores]
    with np.errstate(invalid="ignore"):  # signalling NaN
        flat = np.concatenate([np.asarray(s, np.float64).reshape(-1) for s in scores])
    allowed = np.concatenate([np.asarray(w).reshape(-1) for w in within])
    is_nan = np.isnan(flat)
    value = np.where(is_nan, 0.0, flat)
    ranked = np.lexsort((orders(flat.size, first), -value, is_nan, ~allowed))
    ranked = ranked[: np.count_nonzero(allowed)]
    kept = np.zeros(flat.size, bool)
    kept[ranked[:count]] = True
    if ties == "drop" and count < ranked.size:
        first_out = ranked[count]
        kept &= ~((is_nan == is_nan[first_out]) & (value == value[first_out]))
    ends = np.cumsum([score.size for score in scores])[:-1]
    parts = np.split(kept, ends)
    return [part.reshape(s.shape) for part, s in zip(parts, scores, strict=True)]
