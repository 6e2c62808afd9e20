"""Views leaves as the rows, units and members of a structure, and back."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from jaxsparse import arguments, fan_axes
from jaxsparse import masks as masks_lib
from jaxsparse.select import wrapping
from jaxsparse.select.structures import Structure


class UnitView(NamedTuple):
    """Numbers of rows, units and members of a leaf. Their product is the leaf's size.

    Attributes:
      rows: number of rows; all keep the same number of units.
      units: number of units per row; units of a row compete.
      members: number of weights per unit, which are kept or removed together.
    """

    rows: int
    units: int
    members: int


@arguments.check(structure=arguments.optional(arguments.instance(Structure)))
def unit_view(
    structure: Structure | None, name: str, shape: tuple[int, ...]
) -> UnitView:
    """Computes the numbers of rows, units and members of a leaf.

    Args:
      structure: structured sparsity. None treats every weight as a unit, for any shape.
        A structure that is not bound reads the axes as [..., inputs, outputs].
      name: slash-joined path of the leaf.
      shape: shape of the leaf.

    Returns:
      Numbers of rows, of units per row and of members per unit.

    Raises:
      ValueError: if the leaf has fewer than two axes, or the structure does not divide
        its inputs or outputs. The message names the leaf.
      TypeError: if `structure` is not a structure.

    Examples:
      >>> unit_view(select.n_of_m(4), "conv/kernel", (3, 3, 64, 128))
      UnitView(rows=18432, units=4, members=1)
      >>> unit_view(select.fan_in(), "conv/kernel", (3, 3, 64, 128))
      UnitView(rows=128, units=576, members=1)
    """
    if structure is None or masks_lib.matches(name, structure.dense):
        return UnitView(1, math.prod(shape), 1)
    fans = fan_axes.fans(_layout(structure, name), name, shape)
    for kind, length, size in zip(
        ("inputs", "outputs"), fans[2:], structure.block, strict=True
    ):
        if length % size:
            raise ValueError(
                f"{name}: expected a multiple of {size} {kind}, for {structure}, got "
                f"{length}, of shape {shape}; keep the leaf dense with `dense=`, "
                "exclude it with `prunable=`, or choose another structure"
            )
    if structure.wrapped:
        sides = math.prod(fans.positions) * fans.inputs, fans.outputs
        return UnitView(fans.stack, max(sides), min(sides))
    sizes = np.array(_view_shape(structure, fans))
    groups = _axes(structure)
    return UnitView(*(int(np.prod(sizes[list(axes)], dtype=int)) for axes in groups))


def to_units(
    structure: Structure, name: str, leaf: Shaped[Array, "..."]
) -> Shaped[Array, "rows units members"]:
    """Reshapes a leaf to [rows, units, members].

    Rows, units and members are each in the row-major order of the leaf's matrices, but
    wrapped diagonals in that of `wrapping`. A sharded leaf may be gathered.

    Args:
      structure: structured sparsity.
      name: slash-joined path of the leaf.
      leaf: weights, scores or masks of the leaf.

    Returns:
      The same values, in the shape that `unit_view` returns.

    Raises:
      ValueError: if the leaf does not fit the structure.
    """
    view = unit_view(structure, name, leaf.shape)
    if masks_lib.matches(name, structure.dense):
        return leaf.reshape(view)
    layout, order = _layout(structure, name), sum(_axes(structure), ())
    matrices = fan_axes.to_matrices(layout, name, leaf)
    if structure.wrapped:
        flat = matrices.reshape(len(matrices), -1, matrices.shape[-1])
        return wrapping.to_diagonals(flat)
    view_shape = _view_shape(structure, fan_axes.fans(layout, name, leaf.shape))
    return matrices.reshape(view_shape).transpose(order).reshape(view)


def from_units(
    structure: Structure,
    name: str,
    kept: Shaped[Array, "rows units"],
    shape: tuple[int, ...],
) -> Shaped[Array, "..."]:
    """Converts values of units to values of weights, the inverse of `to_units`.

    Every member of a unit gets the unit's value.

    Args:
      structure: structured sparsity that the leaf was viewed by.
      name: slash-joined path of the leaf.
      kept: boolean mask of the units to keep, or other values of theirs, [rows, units].
      shape: shape of the leaf.

    Returns:
      The mask or the values of the weights, in that shape.
    """
    if masks_lib.matches(name, structure.dense):
        return kept.reshape(shape)
    layout, order = _layout(structure, name), sum(_axes(structure), ())
    fans = fan_axes.fans(layout, name, shape)
    view = unit_view(structure, name, shape)
    members = jnp.broadcast_to(kept[:, :, None], view)
    if structure.wrapped:
        inputs = math.prod(fans.positions) * fans.inputs
        matrices = wrapping.from_diagonals(members, inputs)
        matrices = matrices.reshape(
            fans.stack, *fans.positions, fans.inputs, fans.outputs
        )
        return fan_axes.from_matrices(layout, name, matrices, shape)
    view_shape = np.array(_view_shape(structure, fans))[list(order)]
    members = members.reshape(view_shape.tolist())
    # argsort inverts the permutation that `to_units` applied.
    matrices = members.transpose(np.argsort(order).tolist())
    matrices = matrices.reshape(fans.stack, *fans.positions, fans.inputs, fans.outputs)
    return fan_axes.from_matrices(layout, name, matrices, shape)


def _layout(structure: Structure, name: str) -> fan_axes.FanAxes:
    """Returns the layout of a leaf; that of Flax for a structure that is not bound."""
    return fan_axes.FLAX if structure.axes is None else structure.axes[name]


def _view_shape(structure: Structure, fans: fan_axes.Fans) -> tuple[int, ...]:
    """Returns the sizes of the six axes of a leaf."""
    (a, b), space = structure.block, math.prod(fans.positions)
    return fans.stack, space, fans.inputs // a, a, fans.outputs // b, b


def _axes(structure: Structure) -> tuple[tuple[int, ...], ...]:
    """Lists the axes of rows, of units and of members."""
    numbered = structure.rows + structure.units
    members = tuple(axis for axis in range(6) if axis not in numbered)
    return structure.rows, structure.units, members
