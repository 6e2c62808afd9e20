"""Bisection: the k best of many scores, without sorting them.

Floats are viewed as integers of the same order, and a threshold that at least k of
them reach is narrowed bit by bit. Each pass counts, which costs one read of the scores
and, where leaves are sharded, one all-reduce of one number a threshold: no leaf is
concatenated, gathered or moved. A second bisection, over a pseudo-random order of
positions, breaks ties; it takes no pass where there are none.

`keep` has a threshold for each layer, or one for all; `keep_in_rows` has one for each
row of each layer. Who competes with whom is decided elsewhere.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

from jaxsparse.select import inputs, positions
from jaxsparse.select.inputs import AxisName, Layer
from jaxsparse.types import Count

Ties = Literal["spread", "drop"]
Values = list[Int[Array, "..."]]
CountAt = Callable[[Values, Int[Array, "c"]], Int[Array, "c"]]
Expand = Callable[[Int[Array, "c"]], Values]


def keep(
    layers: list[Layer],
    wanted: list[Count],
    *,
    pooled: bool,
    ties: Ties,
    axis_name: AxisName,
) -> list[Bool[Array, "..."]]:
    """Selects with a threshold for each layer, the same for all if they are pooled.

    Args:
      layers: what to select from.
      wanted: weights to keep of each layer or, at each layer, of all together.
      pooled: whether all layers compete.
      ties: as in `select.globally`.
      axis_name: as in `select.globally`.

    Returns:
      For each layer whether each weight is kept.

    Raises:
      ValueError: if there is no such `ties`.
    """
    if ties not in ("spread", "drop"):
        raise ValueError(f"ties: got {ties!r}; wanted 'spread' or 'drop'")
    is_long = inputs.is_long(layers, pooled=pooled, axis_name=axis_name)
    with inputs.wide(is_long):
        integer = jnp.int64 if is_long else jnp.int32
        counts = jnp.stack([jnp.asarray(each).astype(integer) for each in wanted])
        return _keep(
            sortable_bits(layers),
            positions.of_layers(layers, integer, pooled=pooled, axis_name=axis_name),
            counts,
            ties=ties,
            expand=list,
            count=functools.partial(
                _count, integer=integer, pooled=pooled, axis_name=axis_name
            ),
        )


def keep_in_rows(
    values: list[Int[Array, "_ _"]], wanted: list[Int[Array, ""]]
) -> list[Bool[Array, "_ _"]]:
    """Selects with a threshold for each row; ties are broken as in `select.globally`.

    Args:
      values: [rows, units] for each layer, from `ordered`.
      wanted: units to keep of each row, for each layer. A row that has fewer of them
        to offer keeps those.

    Returns:
      For each layer whether each unit is kept.
    """
    ends = list(np.cumsum([value.shape[0] for value in values]))

    def expand(cuts: Int[Array, "c"]) -> Values:
        return [part[:, None] for part in jnp.split(cuts, ends[:-1])]

    def count(values: Values, cuts: Int[Array, "c"]) -> Int[Array, "c"]:
        pairs = zip(values, expand(cuts), strict=True)
        counts = [_reached(value, cut).astype(jnp.int32) for value, cut in pairs]
        return jnp.concatenate(counts)

    return _keep(
        values,
        [positions.of_shape(value.shape, jnp.int32) for value in values],
        jnp.concatenate(
            [
                jnp.full(value.shape[0], each, jnp.int32)
                for value, each in zip(values, wanted, strict=True)
            ]
        ),
        ties="spread",
        expand=expand,
        count=count,
    )


def sortable_bits(layers: list[Layer]) -> Values:
    """Views scores as integers of the same order.

    Sign and magnitude become two's complement, in which -0.0 is 0. The lowest integer
    is a weight that may not be kept, the next one NaN.
    """
    if inputs.is_double(layers):
        floating, integer = jnp.float64, jnp.int64
    else:
        floating, integer = jnp.float32, jnp.int32
    lowest, highest = jnp.iinfo(integer).min, jnp.iinfo(integer).max
    infinity = int(np.array(np.inf, floating).view(integer))

    def order(layer: Layer) -> Int[Array, "..."]:
        score = jnp.asarray(layer.score).astype(floating)
        bits = lax.bitcast_convert_type(score, integer)
        magnitude = bits & highest
        value = jnp.where(bits < 0, -magnitude, magnitude)
        value = jnp.where(magnitude > infinity, lowest + 1, value)
        return (
            value
            if layer.candidates is None
            else jnp.where(layer.candidates, value, lowest)
        )

    return [order(layer) for layer in layers]


def _keep(
    values: Values,
    orders: Values,
    wanted: Int[Array, "c"],
    *,
    ties: Ties,
    expand: Expand,
    count: CountAt,
) -> list[Bool[Array, "..."]]:
    """Finds the cuts, then breaks the ties at them; `expand` lays cuts on values."""
    limits = jnp.iinfo(values[0].dtype)
    cuts = _bisect(values, wanted, count, low=limits.min + 1, high=limits.max)
    # A surplus means that scores tie at the cut; the last of them have to go.
    surplus = count(values, cuts) - wanted
    tied = [
        jnp.where(value == cut, order, positions.NONE)
        for value, cut, order in zip(values, expand(cuts), orders, strict=True)
    ]
    first, beyond = positions.FIRST, jnp.iinfo(orders[0].dtype).max
    if ties == "spread":
        ends = _bisect(tied, surplus, count, low=first, high=beyond)
    else:
        ends = jnp.where(surplus > 0, first, beyond)
    return [
        (value >= cut) & (order < end)
        for value, cut, order, end in zip(
            values, expand(cuts), tied, expand(ends), strict=True
        )
    ]


def _bisect(
    values: Values, wanted: Int[Array, "c"], count: CountAt, *, low: int, high: int
) -> Int[Array, "c"]:
    """Finds the largest cut in [low, high] that at least `wanted` values reach.

    Stops early at any cut that exactly `wanted` values reach. The answer is `high`,
    without a pass, if none is wanted, and `low` if there are not enough.
    """

    def narrow(bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low | high) - ((low ^ high) >> 1)  # rounds up, cannot overflow
        reached = count(values, middle)
        below = jnp.where(reached == wanted, middle, middle - 1)
        return (
            jnp.where(reached >= wanted, middle, low),
            jnp.where(reached > wanted, high, below),
        )

    highs = jnp.full(wanted.shape, high, values[0].dtype)
    lows = jnp.where(wanted <= 0, highs, jnp.full_like(highs, low))
    return lax.while_loop(lambda b: jnp.any(b[0] < b[1]), narrow, (lows, highs))[0]


def _count(
    values: Values,
    cuts: Int[Array, "l"],
    *,
    integer: Any,
    pooled: bool,
    axis_name: AxisName,
) -> Int[Array, "l"]:
    """Counts the values at or above each layer's cut, over all devices."""
    counts = [
        jnp.sum(_reached(value, cut), dtype=integer)
        for value, cut in zip(values, cuts, strict=True)
    ]
    counted = jnp.stack(counts)
    if axis_name is not None:
        counted = lax.psum(counted, axis_name)
    return jnp.full_like(counted, jnp.sum(counted)) if pooled else counted


def _reached(value: Int[Array, "..."], cut: Int[Array, "..."]) -> Array:
    """Counts the values at or above their cut, along the last axis."""
    reached = jnp.atleast_1d(value >= cut)
    # float32 counts exactly to 2**24, on CPUs in half the time of int32.
    dtype = jnp.float32 if reached.shape[-1] <= 2**24 else jnp.int32
    return jnp.sum(reached, axis=-1, dtype=dtype)
