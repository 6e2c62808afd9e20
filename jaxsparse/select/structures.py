"""Structures: which weights stand or fall together, and which compete.

A structure views a leaf as an array [rows, units, members]. Every row keeps as many
units as any other, and a unit is kept or dropped with all its members:

    structure        a row is               a unit is            its members are
    None             the leaf               a weight             that weight
    in_groups(m)     m consecutive inputs   a weight of these    that weight
    blocks((a, b))   the leaf               a inputs, b outputs  the weights between
    channels()       the leaf               an output            all weights into it
    fan_in()         an output              a weight into it     that weight

Kernels are read as Flax lays them out: inputs and outputs are the last two axes, and
whatever comes before is space. Nothing is selected here: `counts` says how many weights
a structure can keep, `units` selects them.
"""

import dataclasses
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Shaped

# Every structure is a division of these five axes: a leaf's space, its inputs as
# blocks and places in a block, its outputs likewise.
SPACE, IN_BLOCK, IN_PLACE, OUT_BLOCK, OUT_PLACE = range(5)


@dataclasses.dataclass(frozen=True, repr=False)
class Structure:
    """How a leaf becomes [rows, units, members]; made by the functions below.

    Hashable, so that it can be a static argument of `jax.jit`, and equal to another
    made alike.

    Attributes:
      name: the call that makes it, such as "in_groups(4)"; also its `repr`.
      block: inputs and outputs of a block; both divide those of the leaf.
      rows: which of the five axes number the rows.
      units: which of them number the units of a row. The others number the members.
    """

    name: str
    block: tuple[int, int]
    rows: tuple[int, ...]
    units: tuple[int, ...]

    def __repr__(self) -> str:
        """Returns the call that makes it."""
        return self.name


class Grid(NamedTuple):
    """A leaf under a structure. The product of the three is the leaf's size.

    Attributes:
      rows: how many rows there are; all keep equally many units.
      units: units of one row, which compete.
      members: weights of one unit, which stand or fall together.
    """

    rows: int
    units: int
    members: int


def in_groups(size: int) -> Structure:
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
    if size < 2:
        raise ValueError(
            f"in_groups: got {size} weights in a group; wanted 2 or more, such as 4"
        )
    rows, units = (SPACE, IN_BLOCK, OUT_BLOCK), (IN_PLACE,)
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
    if min(size) < 1:
        raise ValueError(
            f"blocks: got {size}; wanted inputs and outputs of a block, 1 or more each"
        )
    inputs, outputs = size
    units = (SPACE, IN_BLOCK, OUT_BLOCK)
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
    return Structure("channels()", (1, 1), (), (OUT_BLOCK,))


def fan_in() -> Structure:
    """Makes every output of a layer keep equally many weights into it.

    Returns:
      The structure.

    References:
      Lasby, Golubeva, Evci, Nica, Ioannou. Dynamic Sparse Training with Structured
      Sparsity. 2023. arXiv:2305.02299, section 3.
    """
    return Structure("fan_in()", (1, 1), (OUT_BLOCK,), (SPACE, IN_BLOCK))


def grid(structure: Structure | None, name: str, shape: tuple[int, ...]) -> Grid:
    """Says how many rows, units and members a leaf has.

    Args:
      structure: how to view the leaf; None for single weights, whatever the shape.
      name: of the leaf, for the message.
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
    if structure is None:
        return Grid(1, math.prod(shape), 1)
    if len(shape) < 2:
        raise ValueError(
            f"{name}: got shape {shape}; wanted two or more axes, the last two of "
            f"inputs and outputs, for {structure}; leave the leaf out with `prunable=`"
        )
    for axis, kind, size in zip((-2, -1), ("in", "out"), structure.block, strict=True):
        if shape[axis] % size:
            raise ValueError(
                f"{name}: got {shape[axis]} {kind}puts, of shape {shape}; wanted a "
                f"multiple of {size}, for {structure}; leave the leaf out with "
                "`prunable=`, or choose another structure"
            )
    sizes = np.array(_five(structure, shape))
    groups = _axes(structure)
    return Grid(*(int(np.prod(sizes[list(axes)], dtype=int)) for axes in groups))


def split(
    structure: Structure, leaf: Shaped[Array, "..."]
) -> Shaped[Array, "rows units members"]:
    """Views a leaf as its rows, units and members.

    Rows, units and members come each in the row-major order of the leaf. A leaf that is
    sharded may be gathered.

    Args:
      structure: how to view it; must have been checked by `grid`.
      leaf: of weights.

    Returns:
      The same values in the shape of the leaf's grid.
    """
    order = sum(_axes(structure), ())
    moved = leaf.reshape(_five(structure, leaf.shape)).transpose(order)
    return moved.reshape(grid(structure, "leaf", leaf.shape))


def join(
    structure: Structure, kept: Bool[Array, "rows units"], shape: tuple[int, ...]
) -> Bool[Array, "..."]:
    """Undoes `split` for a mask of units: every member is what its unit is.

    Args:
      structure: what the leaf was split by.
      kept: which units are kept.
      shape: of the leaf.

    Returns:
      Which weights are kept, in that shape.
    """
    order = sum(_axes(structure), ())
    five = np.array(_five(structure, shape))[list(order)]
    view = grid(structure, "leaf", shape)
    members = jnp.broadcast_to(kept[:, :, None], view).reshape(five.tolist())
    return members.transpose(np.argsort(order).tolist()).reshape(shape)


def _five(structure: Structure, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes the five axes."""
    (a, b), (inputs, outputs) = structure.block, shape[-2:]
    return math.prod(shape[:-2]), inputs // a, a, outputs // b, b


def _axes(structure: Structure) -> tuple[tuple[int, ...], ...]:
    """Lists the axes of rows, of units and of members."""
    numbered = structure.rows + structure.units
    members = tuple(axis for axis in range(5) if axis not in numbered)
    return structure.rows, structure.units, members
