"""Units: the best of each row, or of all layers, where weights stand or fall together.

Splits leaves as their `Structure` says, gives each unit the sum of its members'
scores, keeps the best and lays them out as masks. Rows of a few units are ranked by
comparing each with each; longer ones, and all layers together, by `bisection`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, Real

from jaxsparse.select import bisection, inputs, positions, rounding, structures
from jaxsparse.select.inputs import AxisName, Layer
from jaxsparse.select.structures import Structure
from jaxsparse.types import Count

# Up to here all pairs are faster than bisection, on CPUs by 2 to 40 times.
FEW = 16


def check_options(
    structure: Structure, *, ties: bisection.Ties, axis_name: AxisName
) -> None:
    """Refuses what no structure can be combined with.

    Args:
      structure: what is selected by, for the message.
      ties: as the public functions were given it.
      axis_name: as the public functions were given it.

    Raises:
      ValueError: unless ties are "spread" and no axis is named.
    """
    if ties != "spread":
        raise ValueError(
            f"ties: got {ties!r} with {structure}; wanted 'spread', since every row "
            "has to keep equally many"
        )
    if axis_name is not None:
        raise ValueError(
            f"axis_name: got {axis_name!r} with {structure}; wanted None, since a part "
            "of a leaf does not show its units; select outside `shard_map`"
        )


def top_k_per_layer(
    structure: Structure, layers: list[Layer], counts: list[Any]
) -> list[Bool[Array, "..."]]:
    """Keeps the best units of every row, as many as the layer's count says.

    Args:
      structure: what a unit and a row are.
      layers: what to select from.
      counts: weights to keep of each; Python integers are checked, traced ones are
        floored to what is feasible.

    Returns:
      For each layer whether each weight is kept.

    Raises:
      ValueError: if a leaf does not fit the structure or a count cannot be met.
    """
    for layer in layers:
        _check_rows(structure, layer)
    wanted = [
        _units_wanted(structure, layer, count)
        for layer, count in zip(layers, counts, strict=True)
    ]
    values = bisection.sortable_bits([_units(structure, layer) for layer in layers])
    kept = _best(values, wanted)
    return [
        structures.from_units(structure, layer.name, mask, layer.score.shape)
        for mask, layer in zip(kept, layers, strict=True)
    ]


def top_k_global(
    structure: Structure, layers: list[Layer], count: Any
) -> list[Bool[Array, "..."]]:
    """Keeps the best units of all layers together.

    Args:
      structure: what a unit is; there must be one row in each layer.
      layers: what to select from; all units must have equally many members.
      count: weights to keep of all layers, as in `per_layer`.

    Returns:
      For each layer whether each weight is kept.

    Raises:
      ValueError: if a leaf does not fit the structure, rows would keep unequally many
        units, units are unequal, or the count cannot be met.
    """
    views = [structures.unit_view(structure, la.name, la.score.shape) for la in layers]
    for layer, view in zip(layers, views, strict=True):
        _check_poolable(structure, layer.name, view, layers[0].name, views[0])
    pooled = structures.UnitView(1, sum(view.units for view in views), views[0].members)
    units = [_units(structure, layer) for layer in layers]
    count = _read_count(structure, count, layers, "all layers", pooled)
    kept = bisection.keep(
        units,
        [count // rounding.unit_step(pooled)] * len(layers),
        pooled=True,
        ties="spread",
        axis_name=None,
    )
    return [
        structures.from_units(structure, layer.name, mask, layer.score.shape)
        for mask, layer in zip(kept, layers, strict=True)
    ]


def _check_poolable(
    structure: Structure,
    name: str,
    view: structures.UnitView,
    first: str,
    like: structures.UnitView,
) -> None:
    """Refuses units that cannot compete with those of other layers."""
    if structure.rows:
        raise ValueError(
            f"structure: {structure} makes every row of {name} keep equally many, so "
            "layers cannot compete; wanted one without rows, such as blocks; select "
            "with `per_layer`"
        )
    if view.members != like.members:
        raise ValueError(
            f"structure: {structure} gives {name} units of {view.members} weights and "
            f"{first} of {like.members}, so a count of weights is no count of units; "
            "wanted equal units, such as blocks; select with `per_layer`"
        )


def _check_rows(structure: Structure, layer: Layer) -> None:
    """Refuses rows of more units than int32 counts."""
    view = structures.unit_view(structure, layer.name, layer.score.shape)
    if view.units >= inputs.LIMIT:
        raise ValueError(
            f"scores: {layer.name} has {view.units} units that compete, for "
            f"{structure}; wanted fewer than {inputs.LIMIT}; choose larger units"
        )


def _units_wanted(structure: Structure, layer: Layer, count: Any) -> Int[Array, ""]:
    """Turns a count of weights into one of units in each row."""
    view = structures.unit_view(structure, layer.name, layer.score.shape)
    count = _read_count(structure, count, [layer], layer.name, view)
    return jnp.asarray(count // rounding.unit_step(view)).astype(jnp.int32)


def _read_count(
    structure: Structure,
    count: Any,
    layers: list[Layer],
    where: str,
    view: structures.UnitView,
) -> Count:
    """Reads a count of weights, and refuses one that is known and cannot be met."""
    if isinstance(count, jax.core.Tracer):
        return inputs.read_count(count, layers, where, None)
    known = inputs.as_integer(count, f"count of {where}")
    rounding.check_count(structure, where, view, known)
    return known


def _units(structure: Structure, layer: Layer) -> Layer:
    """Makes a layer of a leaf's units: [rows, units] with their worth."""
    within = layer.candidates
    if within is not None:
        within = jnp.all(structures.to_units(structure, layer.name, within), axis=-1)
    worth = _worth(structures.to_units(structure, layer.name, jnp.asarray(layer.score)))
    return layer._replace(score=worth, candidates=within)


def _worth(
    score: Real[Array, "rows units members"],
) -> Real[Array, "rows units"]:
    """Sums over members, in float32 or better; NaN if any of them is."""
    if score.shape[-1] == 1:
        return score[..., 0]  # a sum could flush a denormal to zero
    wide = jnp.float64 if inputs.is_long_type(score.dtype) else jnp.float32
    return jnp.sum(score, axis=-1, dtype=wide)


def _best(
    values: list[Int[Array, "_ _"]], wanted: list[Int[Array, ""]]
) -> list[Bool[Array, "_ _"]]:
    """Keeps the best of every row, by the cheaper way for each layer."""
    pairs = list(zip(values, wanted, strict=True))
    longer = [pair for pair in pairs if pair[0].shape[1] > FEW]
    if longer:
        found = iter(bisection.keep_in_rows(*map(list, zip(*longer, strict=True))))
    return [
        next(found) if value.shape[1] > FEW else _best_of_few(value, count)
        for value, count in pairs
    ]


def _best_of_few(
    value: Int[Array, "rows units"], wanted: Int[Array, ""]
) -> Bool[Array, "rows units"]:
    """Keeps the units that fewer than `wanted` of their row come before."""
    # Computed once and not for each pair, which takes four times as long.
    order = lax.optimization_barrier(positions.of_shape(value.shape, jnp.int32))
    mine, other = value[:, :, None], value[:, None, :]
    earlier = order[:, None, :] < order[:, :, None]
    ahead = (other > mine) | ((other == mine) & earlier)
    rank = jnp.sum(ahead, axis=-1, dtype=jnp.int32)
    return (rank < wanted) & (value > jnp.iinfo(value.dtype).min)
