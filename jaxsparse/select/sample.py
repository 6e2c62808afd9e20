"""Bounds of a threshold from a sample of the values.

The bounds only tell a search where to try first: masks do not depend on them.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxsparse.select import counting, positions
from jaxsparse.select.search import Values, search

# Values to sample for a threshold over all layers, and for that of a single layer.
POOLED, LAYER = 2**16, 2**12
# A sample pays where there are at least this many times as many values: it takes as
# long as about four counts of all values then, and saves about twenty.
MIN_RATIO = 16
# Bounds are this many standard deviations of the sample's quantile apart from it.
MARGIN = 3.0


def trials(
    values: Values, targets: Int[Array, "l"], *, pooled: bool
) -> list[Int[Array, "l"]]:
    """Estimates bounds of the threshold of each layer, as trials for a search.

    Args:
      values: scores as sortable integers, one array per layer, whole.
      targets: number of values that reach each threshold.
      pooled: whether all layers have a single threshold.

    Returns:
      Trial thresholds in the order to try them, each with an entry per layer: an upper
      bound, a lower bound, and further ones for scores that tie. No trials for values
      that are too few, whose positions need int64, or that may be sharded, since their
      devices would have to exchange the sample.
    """
    sizes = [value.size for value in values]
    each = [LAYER] * len(values)
    if pooled:
        each = [math.ceil(POOLED * size / max(sum(sizes), 1)) for size in sizes]
    if sum(sizes) < MIN_RATIO * sum(each) or not all(sizes):
        return []
    if any(counting.num_devices(value) > 1 for value in values):
        return []
    if max(max(value.shape, default=0) for value in values) >= 2**31:
        return []
    drawn = [draw(value, num) for value, num in zip(values, each, strict=True)]
    sample = jnp.concatenate(drawn)[None] if pooled else jnp.stack(drawn)
    totals = jnp.array([sum(sizes)] if pooled else sizes, jnp.float32)
    part = targets[: len(sample)].astype(jnp.float32) / totals
    rank = part * sample.shape[1]
    margin = 1 + MARGIN * jnp.sqrt(jnp.maximum(rank * (1 - part), 0))
    ranks = jnp.stack([jnp.floor(rank - margin), rank, jnp.ceil(rank + margin)])
    upper, middle, lower = jax.vmap(lambda each: _at_rank(sample, each))(ranks)
    # Where the sample has ties, each of its values is tried, and the next one, which no
    # tie reaches. Elsewhere the limit stands for no trial.
    is_tied = jnp.sum(sample == middle[:, None], axis=-1) > 1
    none = jnp.iinfo(sample.dtype).min
    if_tied = [jnp.where(is_tied, trial, none) for trial in (middle + 1, middle)]
    if_tied += [jnp.where(is_tied, trial, none) for trial in (upper, lower + 1)]
    found = [upper + 1, lower, *if_tied]
    return [jnp.broadcast_to(trial, targets.shape) for trial in found]


def draw(value: Int[Array, "..."], num: int) -> Int[Array, "n"]:
    """Draws values of a leaf at fixed pseudo-random positions.

    Args:
      value: the leaf, with at least one value.
      num: number of values; a position may be drawn several times.
    """
    # Positions in a regular pattern could all be in one column. The remainders of a
    # bijection are uniform up to one part in 2**31 / size.
    number = positions.scatter(jnp.arange(num, dtype=jnp.uint32))
    number = (number % np.uint32(min(value.size, 2**31 - 1))).astype(jnp.int32)
    index: list[Any] = []
    for length in reversed(value.shape):
        index.insert(0, number % length)
        number = number // length
    return value[tuple(index)]


def _at_rank(sample: Int[Array, "l n"], ranks: Float[Array, "l"]) -> Int[Array, "l"]:
    """Finds the value of each row that as many values of the row reach as its rank."""
    limits = jnp.iinfo(sample.dtype)

    def count(values: Values, cuts: Int[Array, "l"]) -> Int[Array, "l"]:
        return counting.count_in_rows(values[0], cuts[:, None]).astype(jnp.int32)

    targets = ranks.astype(jnp.int32)
    low, high = limits.min + 1, limits.max - 1
    return search([sample], targets, count, low=low, high=high)[0]
