"""Structures: which weights stand or fall together, and which compete.

A structure views a leaf as an array [rows, units, members]. Every row keeps as many
units as any other, and a unit is kept or dropped with all its members:

    structure        a row is               a unit is            its members are
    None             the leaf               a weight             that weight
    in_groups(m)     m consecutive inputs   a weight of these    that weight
    blocks((a, b))   the leaf               a inputs, b outputs  the weights between
    channels()       the leaf               an output            all weights into it
    fan_in()         an output              a weight into it     that weight

Inputs and outputs are those that `fan_axes` says; stacked layers and the groups of a
convolution have rows and units of their own. A structure learns the layouts of a tree,
and which layers are kept whole and need not fit, from `bind`. Nothing is selected here:
`counts` says how many weights a structure can keep, `units` selects them.
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

# Every structure is a division of these six axes: a leaf's separate matrices, its
# positions in space, its inputs as blocks and places in a block, its outputs likewise.
STACK, SPACE, IN_BLOCK, IN_PLACE, OUT_BLOCK, OUT_PLACE = range(6)


@dataclasses.dataclass(frozen=True, repr=False)
class Structure:
    """How a leaf becomes [rows, units, members]; made by the functions below.

    Hashable, so that it can be a static argument of `jax.jit`, and equal to another
    made alike.

    Attributes:
      name: the call that makes it, such as "in_groups(4)"; also its `repr`.
      block: inputs and outputs of a block; both divide those of the leaf.
      rows: which of the six axes number the rows.
      units: which of them number the units of a row. The others number the members.
      axes: the layouts of the leaves, from `bind`; None for a structure that was not
        bound, which selection binds to the tree of its scores.
      dense: shell patterns of leaves that need not fit, from `bind`: their weights
        stand alone.
    """

    name: str
    block: tuple[int, int]
    rows: tuple[int, ...]
    units: tuple[int, ...]
    axes: fan_axes.TreeAxes | None = None
    dense: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Returns the call that makes it."""
        return self.name


class UnitView(NamedTuple):
    """A leaf under a structure. The product of the three is the leaf's size.

    Attributes:
      rows: how many rows there are; all keep equally many units.
      units: units of one row, which compete.
      members: weights of one unit, which stand or fall together.
    """

    rows: int
    units: int
    members: int


@arguments.check(size=arguments.integer(2))
def n_of_m(size: int) -> Structure:
    """Makes every `size` consecutive inputs of an output keep equally many: N:M.

    M is `size` and the count decides N: half the weights in groups of 4 is 2:4, which
    sparse tensor cores run. In a convolution each position in space has groups of its
    own, along the input channels.

    Args:
      size: weights in a group, 2 or more; must divide the inputs of each layer.

    Returns:
      The structure.

    Raises:
      ValueError: if the size is less than 2.

    Examples:
      >>> scores = {"kernel": jnp.array([[1.0], [4.0], [3.0], [2.0]])}
      >>> kept = per_layer(scores, {"kernel": 2}, structure=in_groups(4))
      >>> kept["kernel"][:, 0]
      Array([False,  True,  True, False], dtype=bool)

    References:
      Mishra, Latorre, Pool, Stosic, Stosic, Venkatesh, Yu, Micikevicius. Accelerating
      Sparse Deep Neural Networks. 2021. arXiv:2104.08378, section 3.
      Zhou, Ma, Zhu, Liu, Zhang, Yuan, Sun, Li. Learning N:M Fine-grained Structured
      Sparse Neural Networks From Scratch. 2021. arXiv:2102.04010, section 3.
    """
    rows, units = (STACK, SPACE, IN_BLOCK, OUT_BLOCK), (IN_PLACE,)
    return Structure(f"in_groups({size})", (size, 1), rows, units)


def blocks(size: tuple[int, int]) -> Structure:
    """Keeps or drops whole blocks of inputs by outputs, at each position in space.

    Args:
      size: inputs and outputs of a block, each 1 or more; must divide those of each
        layer.

    Returns:
      The structure.

    Raises:
      ValueError: if a side is less than 1.

    Deviations:
      Narang et al. score a block by its largest magnitude; a unit's worth is here the
      sum of its members' scores, whatever the structure. No argument changes that.

    References:
      Narang, Undersander, Diamos. Block-Sparse Recurrent Neural Networks. 2017.
      arXiv:1711.02782, section 3.
    """
    if not isinstance(size, Sequence) or len(size) != 2:
        raise TypeError(f"size: got {size!r}; wanted inputs and outputs of a block")
    for side in size:
        arguments.integer(1)("size", side)
    inputs, outputs = size
    units = (STACK, SPACE, IN_BLOCK, OUT_BLOCK)
    return Structure(f"blocks(({inputs}, {outputs}))", (inputs, outputs), (), units)


def channels() -> Structure:
    """Keeps or drops whole outputs: all weights into a neuron or an output channel.

    What follows the layer still sees the channel, as its bias.

    Returns:
      The structure.

    References:
      Li, Kadav, Durdanovic, Samet, Graf. Pruning Filters for Efficient ConvNets. 2016.
      arXiv:1608.08710, section 3.1, whose sum of magnitudes is the worth of a unit.
    """
    return Structure("channels()", (1, 1), (), (STACK, OUT_BLOCK))


def fan_in() -> Structure:
    """Makes every output of a layer keep equally many weights into it.

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
    """Tells a structure the layouts of a tree's leaves.

    Selection does this itself with what names and shapes of its scores tell.

    Args:
      structure: what weights stand or fall together by; None is returned.
      tree: parameters, their shapes or masks, whose leaves are selected from.
      axes: which axes are inputs and outputs, see `fan_axes`; None to infer them.
      dense: shell patterns of leaves that are kept whole: they need not fit.

    Returns:
      The structure, for trees of the same names only.

    Raises:
      ValueError: as `fan_axes.of_tree`.

    Examples:
      >>> groups = bind(in_groups(4), params, axes=fan_axes.EQUINOX)
      >>> kept = per_layer(scores, counts, structure=groups)
    """
    if structure is None:
        return None
    table = fan_axes.of_tree(tree, axes)
    return dataclasses.replace(structure, axes=table, dense=dense)


def bound(structure: Structure | None, tree: Any) -> Structure | None:
    """Binds a structure to a tree, unless it was bound before."""
    if structure is None or structure.axes is not None:
        return structure
    return bind(structure, tree)


@arguments.check(structure=arguments.optional(arguments.instance(Structure)))
def unit_view(
    structure: Structure | None, name: str, shape: tuple[int, ...]
) -> UnitView:
    """Says how many rows, units and members a leaf has.

    Args:
      structure: how to view the leaf; None for single weights, whatever the shape. One
        that is not bound reads it as [..., inputs, outputs].
      name: of the leaf.
      shape: of the leaf.

    Returns:
      Rows, units of a row, members of a unit.

    Raises:
      ValueError: if the leaf has fewer than two axes, or inputs or outputs that the
        structure does not divide; the message names the leaf.

    Examples:
      >>> grid(in_groups(4), "conv/kernel", (3, 3, 64, 128))
      Grid(rows=18432, units=4, members=1)
      >>> grid(fan_in(), "conv/kernel", (3, 3, 64, 128))
      Grid(rows=128, units=576, members=1)
    """
    if structure is None or masks_lib.matches(name, structure.dense):
        return UnitView(1, math.prod(shape), 1)
    fans = fan_axes.fans(_layout(structure, name), name, shape)
    for kind, found, size in zip(
        ("inputs", "outputs"), fans[2:], structure.block, strict=True
    ):
        if found % size:
            raise ValueError(
                f"{name}: got {found} {kind}, of shape {shape}; wanted a multiple of "
                f"{size}, for {structure}; keep the leaf whole with `dense=`, leave it "
                "out with `prunable=`, or choose another structure"
            )
    sizes = np.array(_six(structure, fans))
    groups = _axes(structure)
    return UnitView(*(int(np.prod(sizes[list(axes)], dtype=int)) for axes in groups))


def to_units(
    structure: Structure, name: str, leaf: Shaped[Array, "..."]
) -> Shaped[Array, "rows units members"]:
    """Views a leaf as its rows, units and members.

    Rows, units and members come each in the row-major order of the leaf's matrices. A
    leaf that is sharded may be gathered.

    Args:
      structure: how to view it; must have been checked by `grid`.
      name: of the leaf.
      leaf: of weights.

    Returns:
      The same values in the shape of the leaf's grid.
    """
    view = unit_view(structure, name, leaf.shape)
    if masks_lib.matches(name, structure.dense):
        return leaf.reshape(view)
    layout, order = _layout(structure, name), sum(_axes(structure), ())
    matrices = fan_axes.to_matrices(layout, name, leaf)
    six = _six(structure, fan_axes.fans(layout, name, leaf.shape))
    return matrices.reshape(six).transpose(order).reshape(view)


def from_units(
    structure: Structure,
    name: str,
    kept: Bool[Array, "rows units"],
    shape: tuple[int, ...],
) -> Bool[Array, "..."]:
    """Undoes `split` for a mask of units: every member is what its unit is.

    Args:
      structure: what the leaf was split by.
      name: of the leaf.
      kept: which units are kept.
      shape: of the leaf.

    Returns:
      Which weights are kept, in that shape.
    """
    if masks_lib.matches(name, structure.dense):
        return kept.reshape(shape)
    layout, order = _layout(structure, name), sum(_axes(structure), ())
    fans = fan_axes.fans(layout, name, shape)
    six = np.array(_six(structure, fans))[list(order)]
    view = unit_view(structure, name, shape)
    members = jnp.broadcast_to(kept[:, :, None], view).reshape(six.tolist())
    matrices = members.transpose(np.argsort(order).tolist())
    matrices = matrices.reshape(fans.stack, *fans.positions, fans.inputs, fans.outputs)
    return fan_axes.from_matrices(layout, name, matrices, shape)


def _layout(structure: Structure, name: str) -> fan_axes.FanAxes:
    """Returns the layout of a leaf, Flax's for a structure that was not bound."""
    return fan_axes.FLAX if structure.axes is None else structure.axes[name]


def _six(structure: Structure, fans: fan_axes.Fans) -> tuple[int, ...]:
    """Sizes the six axes."""
    (a, b), space = structure.block, math.prod(fans.positions)
    return fans.stack, space, fans.inputs // a, a, fans.outputs // b, b


def _axes(structure: Structure) -> tuple[tuple[int, ...], ...]:
    """Lists the axes of rows, of units and of members."""
    numbered = structure.rows + structure.units
    members = tuple(axis for axis in range(6) if axis not in numbered)
    return structure.rows, structure.units, members
