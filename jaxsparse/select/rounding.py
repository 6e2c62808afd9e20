"""Rounding of counts to those that a structure can keep.

A structure keeps the same number of units in every row. Everything here runs on the
host, from names and shapes. Counts are numbers of weights, as everywhere;
`distributions` and `durations`, which compute them, do not depend on structures.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from jaxsparse import arguments, tree
from jaxsparse.select import inputs, structures, units
from jaxsparse.select.structures import Structure
from jaxsparse.select.units import UnitView
from jaxsparse.types import Counts, Masks


@arguments.check(
    structure=arguments.optional(arguments.instance(Structure)),
    masks=arguments.weights,
)
def round_counts(
    structure: Structure | None,
    masks: Masks | PyTree[jax.ShapeDtypeStruct],
    counts: Counts,
) -> Counts:
    """Rounds counts to those that a structure can keep, on the host.

    Args:
      structure: structured sparsity, from `select.n_of_m`, `select.blocks`,
        `select.channels`, `select.fan_in` or `select.diagonals`; None returns the
        counts unchanged. Leaves that `select.bind` marked as dense keep their counts.
      masks: masks, or shapes from `jax.eval_shape`, of the prunable leaves; only names
        and shapes are used.
      counts: number of weights to keep in each leaf, concrete integers; None where a
        leaf is not selected from.

    Returns:
      Python integers with the nesting of `counts`: the nearest multiples of rows times
      members of a unit, with halves rounded up. Their sum may differ from that of
      `counts`, by at most half of such a multiple per leaf.

    Raises:
      ValueError: if a leaf does not fit the structure, a count is out of range for its
        leaf or belongs to no leaf of `masks`, or a count above 0 would be rounded to 0,
        which would leave the layer empty. The message names the leaf.
      TypeError: if a count is not an integer.

    Examples:
      >>> dense = {"a": jnp.ones((8, 3), bool), "b": jnp.ones((4, 5), bool)}
      >>> round_counts(select.n_of_m(4), dense, {"a": 9, "b": 7})
      {'a': 12, 'b': 5}
    """
    if structure is None:
        return counts
    structure = structures.bound(structure, masks)
    shapes = {name: leaf.shape for name, leaf in tree.named_leaves(masks).items()}
    unknown = sorted(set(tree.names(counts)) - set(shapes))
    if unknown:
        raise ValueError(
            f"counts: expected only leaves of masks, {list(shapes)}, got {unknown}"
        )

    def round_leaf(name: str, count: Any) -> int:
        value = inputs.as_integer(count, f"count of {name}")
        view = units.unit_view(structure, name, shapes[name])
        return _nearest(structure, name, view, value)

    return tree.map_with_names(round_leaf, counts)


def round_totals(
    structure: Structure | None,
    masks: Masks | PyTree[jax.ShapeDtypeStruct],
    totals: Sequence[int],
    *,
    frozen: tuple[str, ...] = (),
) -> list[int]:
    """Rounds counts over all layers together to whole units, on the host.

    Args:
      structure: structured sparsity with one row per leaf and units of equal size, such
        as `blocks((4, 4))`; None returns the counts unchanged.
      masks: masks, or shapes from `jax.eval_shape`, of the prunable leaves; only names
        and shapes are used.
      totals: numbers of weights to keep over all leaves that are not frozen; Python
        integers.
      frozen: shell patterns of leaf names; matching leaves are not selected from.

    Returns:
      The nearest multiples of the members of a unit, halves rounded up.

    Raises:
      ValueError: if a leaf does not fit the structure, layers cannot compete by it, or
        a count is out of range, or is above 0 and would be rounded to 0.
    """
    if structure is None:
        return list(totals)
    structure = structures.bound(structure, masks)
    shapes = {
        name: leaf.shape
        for name, leaf in tree.named_leaves(masks).items()
        if not tree.matches(name, frozen)
    }
    if not shapes:  # all layers stay whole
        return list(totals)
    view = pooled_view(structure, shapes)
    return [_nearest(structure, "all layers", view, total) for total in totals]


def pooled_view(
    structure: Structure, shapes: Mapping[str, tuple[int, ...]]
) -> UnitView:
    """Computes the numbers of units and members of layers that compete.

    Args:
      structure: structured sparsity, bound to the leaves.
      shapes: shapes of the layers that compete, by name; at least one.

    Returns:
      One row with the units of all layers.

    Raises:
      ValueError: if a leaf does not fit the structure, or its units cannot compete with
        those of other layers: the structure has several rows per leaf, or units differ
        in size.
    """
    views = {n: units.unit_view(structure, n, shapes[n]) for n in shapes}
    first_name, first_view = next(iter(views.items()))
    for name, view in views.items():
        if structure.rows:
            raise ValueError(
                "structure: expected one without rows, such as blocks, so that layers "
                f"can compete, got {structure}, which makes every row of {name} keep "
                "the same number; select with `top_k_per_layer`"
            )
        if view.members != first_view.members:
            raise ValueError(
                "structure: expected units of equal size, such as blocks, so that "
                f"layers can compete, got {structure}, whose units have "
                f"{view.members} weights in {name} and {first_view.members} in "
                f"{first_name}; select with `top_k_per_layer`"
            )
    return UnitView(1, sum(view.units for view in views.values()), first_view.members)


def to_array(counts: int | Sequence[int], total: int) -> Int[Array, "*n"]:
    """Converts counts to an array, in int64 if the total needs it.

    Args:
      counts: one count or several, Python integers of 0 or more.
      total: number of weights that compete. From 2**31 weights on `select` numbers
        them in int64, and counts must be int64 as well.

    Returns:
      The counts, int32 or int64; without axes for a single count.
    """
    is_long = total >= inputs.LIMIT
    with inputs.wide(is_long):
        return jnp.asarray(np.array(counts, np.int64 if is_long else np.int32))


def count_at(table: Sequence[int], index: Int[Array, ""], total: int) -> Int[Array, ""]:
    """Reads a count of a table by a traced index, in int64 if the total needs it.

    Args:
      table: counts, Python integers of 0 or more.
      index: which count to return, from 0; int32, may be traced.
      total: number of weights that compete, see `to_array`.

    Returns:
      The count, int32 or int64.
    """
    with inputs.wide(total >= inputs.LIMIT):
        return to_array(table, total)[index]


def count_active(leaves: Sequence[Bool[Array, "..."]], total: int) -> Int[Array, ""]:
    """Counts the active weights of layers together, in int64 if the total needs it.

    Args:
      leaves: boolean masks; may be traced.
      total: number of weights that compete, see `to_array`.

    Returns:
      The count, int32 or int64.
    """
    is_long = total >= inputs.LIMIT
    with inputs.wide(is_long):
        integer = jnp.int64 if is_long else jnp.int32
        counts = [jnp.sum(leaf, dtype=integer) for leaf in leaves]
        return sum(counts, jnp.zeros((), integer))


def unit_step(view: UnitView) -> int:
    """Returns how many weights one more unit in every row adds.

    Feasible counts are the multiples of this number. It is at least 1, so that an empty
    leaf has the single feasible count 0.

    Args:
      view: rows, units and members of a leaf, from `units.unit_view`.
    """
    return max(view.rows * view.members, 1)


def check_count(structure: Structure, name: str, view: UnitView, count: int) -> None:
    """Raises an error if a count is not a whole number of units in every row.

    Args:
      structure: structured sparsity, for the error message.
      name: name of the leaf, for the error message.
      view: numbers of rows, units and members of the leaf, from `units.unit_view`.
      count: number of weights to keep.

    Raises:
      ValueError: if the count is not a multiple of `unit_step(view)` between 0 and the
        size of the leaf.
    """
    total = math.prod(view)
    if not 0 <= count <= total or count % unit_step(view):
        raise ValueError(
            f"count of {name}: expected a multiple of {unit_step(view)} from 0 to "
            f"{total}, for {structure}, got {count}; use `select.round_counts`"
        )


def _nearest(structure: Structure, name: str, view: UnitView, count: int) -> int:
    """Rounds a count to the nearest feasible one, halves up."""
    total, step = math.prod(view), unit_step(view)
    if not 0 <= count <= total:
        raise ValueError(
            f"count of {name}: expected 0 to {total}, its number of weights, got "
            f"{count}"
        )
    # In integers, since float division would be inexact for large counts.
    rounded = (2 * count + step) // (2 * step) * step
    if count and not rounded:
        raise ValueError(
            f"count of {name}: expected a multiple of {step} up to {total}, got "
            f"{count}, which {structure} rounds to 0, so that the layer keeps no "
            "weights; keep more, or exclude the leaf with `prunable=`"
        )
    return rounded
