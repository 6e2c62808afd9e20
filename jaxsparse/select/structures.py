"""Structures: which weights are kept or removed together, and which compete.

A structure views a leaf as an array [rows, units, members]. Every row keeps the same
number of units, and a unit is kept or removed with all its members:

    structure        a row is               a unit is            its members are
    None             the leaf               a weight             that weight
    n_of_m(m)        m consecutive inputs   a weight of these    that weight
    blocks((a, b))   the leaf               a inputs, b outputs  the weights between
    channels()       the leaf               an output            all weights into it
    fan_in()         an output              a weight into it     that weight

`fan_axes` determines which axes are inputs and outputs. Stacked layers and the groups
of a convolution have separate rows and units. `bind` attaches to a structure the
layouts of a tree's leaves, and the names of layers that are kept dense and need not
fit. This module selects nothing: `rounding` computes how many weights a structure can
keep, and `structured` selects them.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped

from jaxsparse import arguments, fan_axes
from jaxsparse import masks as masks_lib

# A leaf is viewed with six axes: its separate matrices, its positions in space, the
# blocks of inputs, the places in such a block, the blocks of outputs, and the places in
# such a block. A structure assigns each axis to rows, units or members.
STACK, SPACE, IN_BLOCK, IN_PLACE, OUT_BLOCK, OUT_PLACE = range(6)


@dataclasses.dataclass(frozen=True, repr=False)
class Structure:
    """Defines how a leaf is viewed as [rows, units, members].

    Made by `n_of_m`, `blocks`, `channels` and `fan_in`. A structure is hashable, so it
    can be a static argument of `jax.jit`, and two structures from the same calls are
    equal.

    Attributes:
      name: the `repr`, which is a call such as "blocks((4, 4))".
      block: numbers of inputs and outputs of a block; each divides that of the leaf.
      rows: which of the six axes number the rows.
      units: which of the six axes number the units of a row. The others number the
        members.
      axes: layouts of the leaves, from `bind`; None if the structure is not bound.
        Selection then infers them from the tree of scores.
      dense: shell patterns of leaf names, from `bind`; matching leaves need not fit,
        and each of their weights is a unit of its own.
    """

    name: str
    block: tuple[int, int]
    rows: tuple[int, ...]
    units: tuple[int, ...]
    axes: fan_axes.TreeAxes | None = None
    dense: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Returns the name."""
        return self.name


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


@arguments.check(size=arguments.integer(2))
def n_of_m(size: int) -> Structure:
    """Makes an N:M structure.

    Every `size` consecutive inputs of an output keep the same number of weights. M is
    `size`, and N follows from the count of weights to keep: half of the weights with
    groups of 4 is 2:4 sparsity, which sparse tensor cores support. In a convolution,
    groups run along the input channels, separately for each position in space.

    Args:
      size: number of weights per group, 2 or more; must divide the inputs of each
        layer.

    Returns:
      The structure.

    Raises:
      ValueError: if the size is less than 2.
      TypeError: if the size is not an integer.

    Examples:
      >>> scores = {"kernel": jnp.array([[1.0], [4.0], [3.0], [2.0]])}
      >>> kept = select.top_k_per_layer(scores, {"kernel": 2}, structure=n_of_m(4))
      >>> kept["kernel"][:, 0]
      Array([False,  True,  True, False], dtype=bool)

    References:
      Mishra, Latorre, Pool, Stosic, Stosic, Venkatesh, Yu, Micikevicius. Accelerating
      Sparse Deep Neural Networks. 2021. arXiv:2104.08378, section 3.
      Zhou, Ma, Zhu, Liu, Zhang, Yuan, Sun, Li. Learning N:M Fine-grained Structured
      Sparse Neural Networks From Scratch. 2021. arXiv:2102.04010, section 3.
    """
    rows, units = (STACK, SPACE, IN_BLOCK, OUT_BLOCK), (IN_PLACE,)
    return Structure(f"n_of_m({size})", (size, 1), rows, units)


def blocks(size: tuple[int, int]) -> Structure:
    """Makes a block structure.

    Blocks of inputs by outputs are kept or removed as a whole, separately at each
    position in space.

    Args:
      size: numbers of inputs and outputs of a block, each 1 or more; must divide those
        of each layer.

    Returns:
      The structure.

    Raises:
      ValueError: if a side is less than 1.
      TypeError: if the size is not a pair of integers.

    Deviations:
      Narang et al. score a block by its largest magnitude. Here the score of a unit is
      the sum of its members' scores, for every structure. No argument changes that.

    References:
      Narang, Undersander, Diamos. Block-Sparse Recurrent Neural Networks. 2017.
      arXiv:1711.02782, section 3.
    """
    if not isinstance(size, Sequence) or len(size) != 2:
        raise TypeError(
            f"size: expected the numbers of inputs and outputs of a block, got {size!r}"
        )
    for side in size:
        arguments.integer(1)("size", side)
    inputs, outputs = size
    units = (STACK, SPACE, IN_BLOCK, OUT_BLOCK)
    return Structure(f"blocks(({inputs}, {outputs}))", (inputs, outputs), (), units)


def channels() -> Structure:
    """Makes a channel structure.

    All weights into a neuron or an output channel are kept or removed together. The
    bias of a removed channel stays, so the next layer still receives the channel.

    Returns:
      The structure.

    References:
      Li, Kadav, Durdanovic, Samet, Graf. Pruning Filters for Efficient ConvNets. 2016.
      arXiv:1608.08710, section 3.1. With scores by magnitude, the score of a unit is
      its sum of magnitudes, as in that paper.
    """
    return Structure("channels()", (1, 1), (), (STACK, OUT_BLOCK))


def fan_in() -> Structure:
    """Makes a constant fan-in structure.

    Every output of a layer keeps the same number of weights into it.

    Returns:
      The structure.

    References:
      Lasby, Golubeva, Evci, Nica, Ioannou. Dynamic Sparse Training with Structured
      Sparsity. 2023. arXiv:2305.02299, section 3.
    """
    return Structure("fan_in()", (1, 1), (STACK, OUT_BLOCK), (SPACE, IN_BLOCK))


@arguments.check(
    structure=arguments.optional(arguments.instance(Structure)),
    dense=arguments.patterns,
)
def bind(
    structure: Structure | None,
    tree: Any,
    *,
    axes: fan_axes.Axes = None,
    dense: tuple[str, ...] = (),
) -> Structure | None:
    """Attaches to a structure the layouts of a tree's leaves.

    Selection binds a structure itself if it is not bound, and then infers the layouts
    from the names and shapes of its scores. Bind it before if they need `axes` or
    `dense`, or if biases, which have no scores, help to infer the layouts.

    Args:
      structure: structured sparsity, from `n_of_m`, `blocks`, `channels` or `fan_in`;
        None is returned unchanged.
      tree: parameters, their shapes or masks, with the leaves that are selected from.
      axes: which axes of the leaves are inputs and outputs, in any form that
        `fan_axes.of_tree` accepts; None to infer them.
      dense: shell patterns of leaf names; matching leaves are kept dense and need not
        fit the structure.

    Returns:
      The structure, which now fits only trees with the same leaf names.

    Raises:
      ValueError: if a layout is malformed or a pattern of `axes` matches no leaf.
      TypeError: if `structure` is not a structure, or `axes` or `dense` has a wrong
        type.

    Examples:
      >>> params = {"weight": jnp.array([[1.0, 4.0, 3.0, 2.0]])}  # outputs, inputs
      >>> groups = bind(n_of_m(4), params, axes=fan_axes.EQUINOX)
      >>> select.top_k_per_layer(params, {"weight": 2}, structure=groups)
      {'weight': Array([[False,  True,  True, False]], dtype=bool)}
    """
    if structure is None:
        return None
    table = fan_axes.of_tree(tree, axes)
    return dataclasses.replace(structure, axes=table, dense=dense)


def bound(structure: Structure | None, tree: Any) -> Structure | None:
    """Binds a structure to a tree, unless it is None or already bound.

    Args:
      structure: structured sparsity, such as `n_of_m(4)`, or None.
      tree: parameters, their shapes or masks.
    """
    if structure is None or structure.axes is not None:
        return structure
    return bind(structure, tree)


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
      >>> unit_view(n_of_m(4), "conv/kernel", (3, 3, 64, 128))
      UnitView(rows=18432, units=4, members=1)
      >>> unit_view(fan_in(), "conv/kernel", (3, 3, 64, 128))
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
    sizes = np.array(_view_shape(structure, fans))
    groups = _axes(structure)
    return UnitView(*(int(np.prod(sizes[list(axes)], dtype=int)) for axes in groups))


def to_units(
    structure: Structure, name: str, leaf: Shaped[Array, "..."]
) -> Shaped[Array, "rows units members"]:
    """Reshapes a leaf to [rows, units, members].

    Rows, units and members are each in the row-major order of the leaf's matrices. A
    sharded leaf may be gathered.

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
    view_shape = _view_shape(structure, fan_axes.fans(layout, name, leaf.shape))
    return matrices.reshape(view_shape).transpose(order).reshape(view)


def from_units(
    structure: Structure,
    name: str,
    kept: Bool[Array, "rows units"],
    shape: tuple[int, ...],
) -> Bool[Array, "..."]:
    """Converts a mask of units to a mask of weights, the inverse of `to_units`.

    Every member of a unit gets the unit's value.

    Args:
      structure: structured sparsity that the leaf was viewed by.
      name: slash-joined path of the leaf.
      kept: boolean mask of the units to keep, [rows, units].
      shape: shape of the leaf.

    Returns:
      Boolean mask of the weights to keep, in that shape.
    """
    if masks_lib.matches(name, structure.dense):
        return kept.reshape(shape)
    layout, order = _layout(structure, name), sum(_axes(structure), ())
    fans = fan_axes.fans(layout, name, shape)
    view_shape = np.array(_view_shape(structure, fans))[list(order)]
    view = unit_view(structure, name, shape)
    members = jnp.broadcast_to(kept[:, :, None], view).reshape(view_shape.tolist())
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
