"""Bisection: the k best of many scores, without sorting them.

Floats are viewed as integers of the same order, and a threshold that at least k of
them reach is narrowed bit by bit. Each pass counts, which costs one read of the scores
and, where leaves are sharded, one all-reduce of one number a threshold: no leaf is
concatenated, gathered or moved. A second bisection, over the position, breaks ties; it
takes no pass where there are none.

`keep` has a threshold for each layer, or one for all; `keep_in_rows` has one for each
row of each layer. Who competes with whom is decided elsewhere.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

from jaxsparse.select import layers as layers_lib
from jaxsparse.select.layers import AxisName, Layer

Ties = Literal["index", "drop"]
Values = list[Int[Array, "..."]]
Count = Callable[[Values, Int[Array, "c"]], Int[Array, "c"]]
Spread = Callable[[Int[Array, "c"]], Values]


def keep(
    layers: list[Layer],
    wanted: Int[Array, "l"],
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
      ValueError: if there are 2**31 weights or more, or no such `ties`.
    """
    if ties not in ("index", "drop"):
        raise ValueError(f"ties: got {ties!r}; wanted 'index' or 'drop'")
    layers_lib.check_size(layers, axis_name)
    return _keep(
        ordered(layers),
        _positions(layers, axis_name),
        wanted,
        total=layers_lib.size(layers, axis_name),
        ties=ties,
        spread=list,
        count=functools.partial(_count, pooled=pooled, axis_name=axis_name),
    )


def keep_in_rows(
    values: list[Int[Array, "_ _"]], wanted: list[Int[Array, ""]]
) -> list[Bool[Array, "_ _"]]:
    """Selects with a threshold for each row; of equal values the first are kept.

    Args:
      values: [rows, units] for each layer, from `ordered`.
      wanted: units to keep of each row, for each layer. A row that has fewer of them
        to offer keeps those.

    Returns:
      For each layer whether each unit is kept.
    """
    ends = list(np.cumsum([value.shape[0] for value in values]))

    def spread(cuts: Int[Array, "c"]) -> Values:
        return [part[:, None] for part in jnp.split(cuts, ends[:-1])]

    def count(values: Values, cuts: Int[Array, "c"]) -> Int[Array, "c"]:
        pairs = zip(values, spread(cuts), strict=True)
        counts = [_reached(value, cut).astype(jnp.int32) for value, cut in pairs]
        return jnp.concatenate(counts)

    return _keep(
        values,
        [lax.broadcasted_iota(jnp.int32, value.shape, 1) for value in values],
        jnp.concatenate(
            [
                jnp.full(value.shape[0], each, jnp.int32)
                for value, each in zip(values, wanted, strict=True)
            ]
        ),
        total=max(value.shape[1] for value in values),
        ties="index",
        spread=spread,
        count=count,
    )


def ordered(layers: list[Layer]) -> Values:
    """Views scores as integers of the same order.

    Sign and magnitude become two's complement, in which -0.0 is 0. The lowest integer
    is a weight that may not be kept, the next one NaN.
    """
    wide = any(layer.score.dtype == jnp.float64 for layer in layers)
    floating, integer = (jnp.float64, jnp.int64) if wide else (jnp.float32, jnp.int32)
    lowest, highest = jnp.iinfo(integer).min, jnp.iinfo(integer).max
    infinity = int(np.array(np.inf, floating).view(integer))

    def order(layer: Layer) -> Int[Array, "..."]:
        bits = lax.bitcast_convert_type(layer.score.astype(floating), integer)
        magnitude = bits & highest
        value = jnp.where(bits < 0, -magnitude, magnitude)
        value = jnp.where(magnitude > infinity, lowest + 1, value)
        return value if layer.within is None else jnp.where(layer.within, value, lowest)

    return [order(layer) for layer in layers]


def _keep(
    values: Values,
    positions: Values,
    wanted: Int[Array, "c"],
    *,
    total: int,
    ties: Ties,
    spread: Spread,
    count: Count,
) -> list[Bool[Array, "..."]]:
    """Finds the cuts, then breaks the ties at them; `spread` lays cuts on values."""
    limits = jnp.iinfo(values[0].dtype)
    cuts = _bisect(values, wanted, count, low=limits.min + 1, high=limits.max)
    # A surplus means that scores tie at the cut; the last of them have to go.
    surplus = count(values, cuts) - wanted
    tied = [
        jnp.where(value == cut, position, -1)
        for value, cut, position in zip(values, spread(cuts), positions, strict=True)
    ]
    if ties == "index":
        ends = _bisect(tied, surplus, count, low=0, high=total)
    else:
        ends = jnp.where(surplus > 0, 0, total)
    return [
        (value >= cut) & (position < end)
        for value, cut, position, end in zip(
            values, spread(cuts), tied, spread(ends), strict=True
        )
    ]


def _bisect(
    values: Values, wanted: Int[Array, "c"], count: Count, *, low: int, high: int
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
    values: Values, cuts: Int[Array, "l"], *, pooled: bool, axis_name: AxisName
) -> Int[Array, "l"]:
    """Counts the values at or above each layer's cut, over all devices."""
    counts = [
        jnp.sum(_reached(value, cut), dtype=jnp.int32)
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


def _positions(layers: list[Layer], axis_name: AxisName) -> Values:
    """Numbers the weights of all layers, in row-major order, across devices.

    Built from iotas: a cumulative sum would gather sharded leaves.
    """
    device = 0 if axis_name is None else lax.axis_index(axis_name)
    result, start = [], 0
    for layer in layers:
        shape = layer.score.shape
        position = jnp.full(shape, start + device * layer.score.size, jnp.int32)
        for axis in range(len(shape)):
            stride = int(np.prod(shape[axis + 1 :]))
            position += lax.broadcasted_iota(jnp.int32, shape, axis) * stride
        result.append(position)
        start += layers_lib.size([layer], axis_name)
    return result
