"""Slow and obvious versions of what jaxsparse does fast, in numpy."""

import numpy as np


def select(
    scores: list[np.ndarray],
    count: int,
    within: list[np.ndarray] | None = None,
    ties: str = "index",
) -> list[np.ndarray]:
    """Sorts all weights: numbers before NaN, high before low, early before late."""
    if within is None:
        within = [np.ones(score.shape, bool) for score in scores]
    with np.errstate(invalid="ignore"):  # signalling NaN
        flat = np.concatenate([np.asarray(s, np.float64).reshape(-1) for s in scores])
    allowed = np.concatenate([np.asarray(w).reshape(-1) for w in within])
    is_nan = np.isnan(flat)
    value = np.where(is_nan, 0.0, flat)
    order = np.lexsort((np.arange(flat.size), -value, is_nan, ~allowed))
    order = order[: np.count_nonzero(allowed)]
    kept = np.zeros(flat.size, bool)
    kept[order[:count]] = True
    if ties == "drop" and count < order.size:
        first_out = order[count]
        kept &= ~((is_nan == is_nan[first_out]) & (value == value[first_out]))
    ends = np.cumsum([score.size for score in scores])[:-1]
    parts = np.split(kept, ends)
    return [part.reshape(s.shape) for part, s in zip(parts, scores, strict=True)]
