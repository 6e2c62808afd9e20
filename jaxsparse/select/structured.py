"""Selection of whole units, for structured sparsity.

Views leaves as a `Structure` defines, sums the scores of each unit's members, keeps the
best units of each row or of all layers, and converts the result to masks. Rows of a few
units are ranked by comparing all pairs of units. Longer rows, and all layers together,
are selected from by `thresholds`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, Real

from jaxsparse.select import inputs, positions, rounding, thresholds, units
from jaxsparse.select.inputs import AxisName, Layer
from jaxsparse.select.structures import Structure
from jaxsparse.types import Count

# Units per row up to which comparing all pairs is faster than bisection, on CPUs by a
# factor of 2 to 40.
MAX_PAIRED = 16


def check_options(
    structure: Structure, *, ties: thresholds.Ties, axis_name: AxisName
) -> None:
    """Raises an error for options that cannot be combined with a structure.

    Args:
      structure: structured sparsity, for the error message.
      ties: how ties are resolved, "spread" or "drop".
      axis_name: mesh axis or axes along which leaves are split inside `shard_map`, or
        None.

    Raises:
      ValueError: if `ties` is not "spread", or `axis_name` is not None.
    """
    if ties != "spread":
        raise ValueError(
            f"ties: expected 'spread' with {structure}, since every row keeps the same "
            f"number of units, got {ties!r}"
        )
    if axis_name is not None:
        raise ValueError(
            f"axis_name: expected None with {structure}, since a part of a leaf does "
            f"not show its units, got {axis_name!r}; select outside `shard_map`"
        )


def top_k_per_layer(
    structure: Structure, layers: list[Layer], counts: list[Any]
) -> list[Bool[Array, "..."]]:
    """Keeps the best units of every row, as many as the layer's count allows.

    Args:
      structure: structured sparsity, bound to the leaves.
      layers: leaves to select from.
      counts: number of weights to keep in each layer. A concrete integer must be
        feasible; a traced one is rounded down to a feasible one.

    Returns:
      For each layer a boolean array of the shape of its scores, True for weights to
      keep.

    Raises:
      ValueError: if a leaf does not fit the structure, a concrete count is not
        feasible, or a row has 2**31 units or more.
      TypeError: if a count is not an integer.
    """
    for layer in layers:
        _check_rows(structure, layer)
    num_keep = [
        _units_to_keep(structure, layer, count)
        for layer, count in zip(layers, counts, strict=True)
    ]
    values = thresholds.sortable_bits(
        [unit_layer(structure, layer) for layer in layers]
    )
    kept = _top_k_of_rows(values, num_keep)
    return [
        units.from_units(structure, layer.name, mask, layer.score.shape)
        for mask, layer in zip(kept, layers, strict=True)
    ]


def top_k_global(
    structure: Structure, layers: list[Layer], count: Any
) -> list[Bool[Array, "..."]]:
    """Keeps the best units of all layers together.

    Args:
      structure: structured sparsity, bound to the leaves; with a single row per leaf.
      layers: leaves to select from; all units must have the same number of members.
      count: number of weights to keep over all layers. A concrete integer must be a
        multiple of the members of a unit; a traced one is rounded down to one.

    Returns:
      For each layer a boolean array of the shape of its scores, True for weights to
      keep.

    Raises:
      ValueError: if a leaf does not fit the structure, the structure has several rows
        per leaf, units differ in size, or a concrete count is not feasible.
      TypeError: if the count is not an integer.
    """
    shapes = {layer.name: layer.score.shape for layer in layers}
    pooled = rounding.pooled_view(structure, shapes)
    unit_layers = [unit_layer(structure, layer) for layer in layers]
    count = _read_count(structure, count, layers, "all layers", pooled)
    kept = thresholds.keep(
        unit_layers,
        [count // rounding.unit_step(pooled)] * len(layers),
        pooled=True,
        ties="spread",
        axis_name=None,
    )
    return [
        units.from_units(structure, layer.name, mask, layer.score.shape)
        for mask, layer in zip(kept, layers, strict=True)
    ]


def unit_layer(structure: Structure, layer: Layer) -> Layer:
    """Converts a layer to one with an entry per unit, [rows, units].

    Args:
      structure: structured sparsity, bound to the leaves.
      layer: leaf with an entry per weight.

    Returns:
      The layer with the sum of the members' scores as the score of a unit. A unit is a
      candidate if all its members are.
    """
    candidates = layer.candidates
    if candidates is not None:
        candidates = jnp.all(units.to_units(structure, layer.name, candidates), axis=-1)
    unit_scores = _sum_members(
        units.to_units(structure, layer.name, jnp.asarray(layer.score))
    )
    return layer._replace(score=unit_scores, candidates=candidates)


def _check_rows(structure: Structure, layer: Layer) -> None:
    """Raises an error if a row has 2**31 units or more, which int32 cannot count."""
    view = units.unit_view(structure, layer.name, layer.score.shape)
    if view.units >= inputs.LIMIT:
        raise ValueError(
            f"scores: {layer.name}: expected fewer than {inputs.LIMIT} units per row, "
            f"for {structure}, got {view.units}; choose larger units"
        )


def _units_to_keep(structure: Structure, layer: Layer, count: Any) -> Int[Array, ""]:
    """Converts a number of weights to a number of units in each row."""
    view = units.unit_view(structure, layer.name, layer.score.shape)
    count = _read_count(structure, count, [layer], layer.name, view)
    return jnp.asarray(count // rounding.unit_step(view)).astype(jnp.int32)


def _read_count(
    structure: Structure,
    count: Any,
    layers: list[Layer],
    where: str,
    view: units.UnitView,
) -> Count:
    """Reads a number of weights; raises an error if it is concrete and not feasible."""
    if isinstance(count, jax.core.Tracer):
        return inputs.read_count(count, layers, where, None)
    value = inputs.as_integer(count, f"count of {where}")
    rounding.check_count(structure, where, view, value)
    return value


def _sum_members(
    score: Real[Array, "rows units members"],
) -> Real[Array, "rows units"]:
    """Sums the scores of each unit's members, in float32 or wider.

    Integers of 32 bits or more and float64 are summed in float64. The sum is NaN if a
    member is NaN or infinities of both signs are added.
    """
    if score.shape[-1] == 1:
        return score[..., 0]  # a sum could flush a subnormal number to zero
    wide = jnp.float64 if inputs.is_long_type(score.dtype) else jnp.float32
    return jnp.sum(score, axis=-1, dtype=wide)


@jax.jit
def _top_k_of_rows(
    values: list[Int[Array, "_ _"]], num_keep: list[Int[Array, ""]]
) -> list[Bool[Array, "_ _"]]:
    """Keeps the best units of every row, by the faster method for each layer.

    Args:
      values: for each layer an integer array [rows, units], from
        `thresholds.sortable_bits`.
      num_keep: for each layer the number of units to keep in each row, int32.

    Returns:
      For each layer a boolean array [rows, units].
    """
    pairs = list(zip(values, num_keep, strict=True))
    # One search serves all layers with long rows: they share its loop.
    long_rows = [pair for pair in pairs if pair[0].shape[1] > MAX_PAIRED]
    if long_rows:
        longer_kept = iter(
            thresholds.keep_in_rows(*map(list, zip(*long_rows, strict=True)))
        )
    return [
        next(longer_kept)
        if value.shape[1] > MAX_PAIRED
        else _top_k_by_pairs(value, count)
        for value, count in pairs
    ]


def _top_k_by_pairs(
    value: Int[Array, "rows units"], num_keep: Int[Array, ""]
) -> Bool[Array, "rows units"]:
    """Keeps the best `num_keep` units of every row, ranked by comparing all pairs."""
    # Without the barrier, XLA computes the order anew for each pair, which takes four
    # times as long.
    order = lax.optimization_barrier(positions.of_shape(value.shape, jnp.int32))
    own, other = value[:, :, None], value[:, None, :]
    earlier = order[:, None, :] < order[:, :, None]
    ahead = (other > own) | ((other == own) & earlier)
    rank = jnp.sum(ahead, axis=-1, dtype=jnp.int32)
    # The lowest integer marks units that are not candidates.
    return (rank < num_keep) & (value > jnp.iinfo(value.dtype).min)
