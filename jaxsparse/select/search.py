"""Search for the largest threshold that a number of values reach.

Each iteration counts the values that reach a trial threshold, and keeps the part of the
interval that contains the result. Trials halve the interval. If two trials from a
sample have bounded the result, further ones are interpolated between the counts at the
ends of the interval: about 8 iterations instead of 31 find a threshold of millions of
values. Any trial gives the same result.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

Values = list[Int[Array, "..."]]
CountAt = Callable[[Values, Int[Array, "c"]], Int[Array, "c"]]
Counted = tuple[Int[Array, "c"], Int[Array, "c"], Int[Array, "c"]]

# After this many iterations only bisection is used, since interpolation may be slow
# where the values are far from uniform between the ends of the interval.
MAX_INTERPOLATED = 16
UNKNOWN = -1  # a count that was not made yet


def search(
    values: Values,
    targets: Int[Array, "c"],
    count: CountAt,
    *,
    low: int,
    high: int,
    first: Sequence[Int[Array, "c"]] = (),
    uniform: bool = False,
    num_values: Int[Array, "c"] | None = None,
) -> Counted:
    """Finds the largest threshold in [low, high] that at least `targets` values reach.

    Stops early at any threshold that exactly `targets` values reach, since all such
    thresholds select the same values.

    Args:
      values: integers to count, one array per layer.
      targets: number of values that must reach each threshold.
      count: called as `count(values, thresholds)`; counts the values that reach each
        threshold.
      low: lowest threshold.
      high: highest threshold, which no value reaches.
      first: thresholds to try first, such as an upper and a lower bound of the result;
        those outside the remaining interval are ignored.
      uniform: whether values are spread uniformly over [low, high], so that trials are
        interpolated from the start.
      num_values: number of values that reach `low`, if it is known.

    Returns:
      The thresholds: `high`, without an iteration, where `targets` is 0 or less, and
      `low` where fewer than `targets` values reach any threshold. The number of values
      that reach each threshold, and the number that reach a higher one. The latter is
      not exact where the search stopped early.
    """
    dtype = values[0].dtype
    word = jnp.uint32 if dtype == jnp.int32 else jnp.uint64
    # Within two binades of floating-point values their integers are nearly uniform.
    widest = jnp.inf if uniform else 2.0 ** (25 if dtype == jnp.int32 else 54)

    def offset_of(trial: Int[Array, "c"], low: Int[Array, "c"]) -> Array:
        return trial.astype(word) - low.astype(word)

    def narrow(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        iteration, low, high, reached, above = carry
        span = offset_of(high, low)
        offset = span - span // 2  # rounds up, cannot overflow
        if first or uniform:
            width = span.astype(jnp.float32)
            surplus = (reached - targets).astype(jnp.float32)
            part = surplus / jnp.maximum(reached - above, 1).astype(jnp.float32)
            usable = (width < widest) & (reached != UNKNOWN)
            usable &= iteration < MAX_INTERPOLATED
            guess = jnp.clip(part * width, 0, width).astype(word)
            offset = jnp.where(usable, guess, offset)
        for number, trial in enumerate(first):
            inside = (iteration == number) & (trial > low) & (trial <= high)
            offset = jnp.where(inside, offset_of(trial, low), offset)
        # At the end only `low` itself is left to be counted.
        offset = jnp.where(low == high, 0, jnp.clip(offset, 1, jnp.maximum(span, 1)))
        middle = (low.astype(word) + offset).astype(dtype)
        counted = count(values, middle)
        is_low = low == high
        enough = counted >= targets
        return (
            iteration + 1,
            jnp.where(enough, middle, low),
            jnp.where(
                is_low | (counted > targets),
                high,
                jnp.where(enough, middle, middle - 1),
            ),
            jnp.where(enough | is_low, counted, reached),
            jnp.where(enough | is_low, above, counted),
        )

    def unfinished(carry: tuple[Any, ...]) -> Array:
        _, low, high, reached, _ = carry
        return jnp.any((low < high) | (reached == UNKNOWN))

    none = targets <= 0
    highs = jnp.full(targets.shape, high, dtype)
    lows = jnp.where(none, highs, jnp.full_like(highs, low))
    known = jnp.full_like(targets, UNKNOWN) if num_values is None else num_values
    start = (0, lows, highs, jnp.where(none, 0, known), jnp.zeros_like(targets))
    _, cuts, _, reached, above = lax.while_loop(unfinished, narrow, start)
    return cuts, reached, above
