"""Search for the largest threshold that a number of values reach.

Each iteration counts the values that reach a trial threshold, and keeps the part of the
interval that contains the result. Trials halve the interval. If two trials from a
sample have bounded the result, further ones are interpolated between the counts at the
ends of the interval: about 8 iterations instead of 31 find a threshold of millions of
values. Any trial gives the same result.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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


class Interval(NamedTuple):
    """The intervals that contain the thresholds, during the search.

    Attributes:
      iteration: number of iterations so far.
      low: lowest possible thresholds.
      high: highest possible thresholds.
      reached: number of values that reach `low`, or `UNKNOWN`.
      above: number of values that reach a threshold right above `high`.
    """

    iteration: Any
    low: Int[Array, "c"]
    high: Int[Array, "c"]
    reached: Int[Array, "c"]
    above: Int[Array, "c"]


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

    def narrow(interval: Interval) -> Interval:
        low, high = interval.low, interval.high
        middle = _trial(interval, targets, first=first, uniform=uniform)
        counted = count(values, middle)
        is_low = low == high
        enough = counted >= targets
        return Interval(
            interval.iteration + 1,
            jnp.where(enough, middle, low),
            jnp.where(
                # More values than wanted: the result may be higher.
                is_low | (counted > targets),
                high,
                # Exactly as many end the search; with fewer the result is lower.
                jnp.where(enough, middle, middle - 1),
            ),
            # The counts belong to the ends: a trial that enough values reach becomes
            # the lower end, otherwise it is right above the upper end.
            jnp.where(enough | is_low, counted, interval.reached),
            jnp.where(enough | is_low, interval.above, counted),
        )

    def unfinished(interval: Interval) -> Array:
        # A lower end that was never counted, because no trial was reached by enough
        # values, is counted in an iteration of its own.
        return jnp.any((interval.low < interval.high) | (interval.reached == UNKNOWN))

    # Nothing to keep: the interval is empty from the start, at a threshold that no
    # value reaches.
    none = targets <= 0
    highs = jnp.full(targets.shape, high, values[0].dtype)
    lows = jnp.where(none, highs, jnp.full_like(highs, low))
    known = jnp.full_like(targets, UNKNOWN) if num_values is None else num_values
    start = Interval(0, lows, highs, jnp.where(none, 0, known), jnp.zeros_like(targets))
    end = lax.while_loop(unfinished, narrow, start)
    return end.low, end.reached, end.above


def _trial(
    interval: Interval,
    targets: Int[Array, "c"],
    *,
    first: Sequence[Int[Array, "c"]],
    uniform: bool,
) -> Int[Array, "c"]:
    """Chooses the thresholds whose values are counted next, above `low` if possible.

    Args:
      interval: the remaining intervals.
      targets: number of values that must reach each threshold.
      first: thresholds to try first.
      uniform: whether values are spread uniformly from the start.
    """
    iteration, low, high, reached, above = interval
    dtype = low.dtype
    # Distances of integers with a sign may need one bit more than the sign leaves.
    word = jnp.uint32 if dtype == jnp.int32 else jnp.uint64
    span = high.astype(word) - low.astype(word)
    offset = span - span // 2  # rounds up, cannot overflow
    if first or uniform:
        # Where as many values lie between the ends as the counts say, evenly, the
        # target is reached after this part of the interval.
        width = span.astype(jnp.float32)
        surplus = (reached - targets).astype(jnp.float32)
        part = surplus / jnp.maximum(reached - above, 1).astype(jnp.float32)
        # Within two binades of floating-point values their integers are nearly uniform.
        widest = jnp.inf if uniform else 2.0 ** (25 if dtype == jnp.int32 else 54)
        usable = (width < widest) & (reached != UNKNOWN)
        usable &= iteration < MAX_INTERPOLATED
        guess = jnp.clip(part * width, 0, width).astype(word)
        offset = jnp.where(usable, guess, offset)
    # Each of these is tried once, in its iteration, if it is still of use.
    for number, trial in enumerate(first):
        inside = (iteration == number) & (trial > low) & (trial <= high)
        offset = jnp.where(inside, trial.astype(word) - low.astype(word), offset)
    # At least 1, so that every iteration narrows the interval. At the end only `low`
    # itself is left to be counted.
    offset = jnp.where(low == high, 0, jnp.clip(offset, 1, jnp.maximum(span, 1)))
    return (low.astype(word) + offset).astype(dtype)
