"""Structures: which weights are kept or removed together, and which compete.

A structure views a leaf as an array [rows, units, members]. Every row keeps the same
number of units, and a unit is kept or removed with all its members:

    structure        a row is               a unit is            its members are
    None             the leaf               a weight             that weight
    n_of_m(m)        m consecutive inputs   a weight of these    that weight
    blocks((a, b))   the leaf               a inputs, b outputs  the weights between
    channels()       the leaf               an output            all weights into it
    fan_in()         an output              a weight into it     that weight
    diagonals()      the leaf               a wrapped diagonal   the weights on it

`fan_axes` determines which axes are inputs and outputs. Stacked layers and the groups
of a convolution have separate rows and units, and each of them keeps as many diagonals
as the others. `bind` attaches to a structure the layouts of a tree's leaves, and the
names of layers that are kept dense and need not fit. This module selects nothing:
`units` views leaves by a structure, `rounding` computes how many weights a structure
can keep, and `structured` selects them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxsparse import arguments, fan_axes

# A leaf is viewed with six axes: its separate matrices, its positions in space, the
# blocks of inputs, the places in such a block, the blocks of outputs, and the places in
# such a block. A structure assigns each axis to rows, units or members.
STACK, SPACE, IN_BLOCK, IN_PLACE, OUT_BLOCK, OUT_PLACE = range(6)


@dataclasses.dataclass(frozen=True, repr=False)
class Structure:
    """Defines how a leaf is viewed as [rows, units, members].

    Made by `n_of_m`, `blocks`, `channels`, `fan_in` and `diagonals`. A structure is
    hashable, so it can be a static argument of `jax.jit`, and two structures from the
    same calls are equal.

    Attributes:
      name: the `repr`, which is a call such as "blocks((4, 4))".
      block: numbers of inputs and outputs of a block; each divides that of the leaf.
      rows: which of the six axes number the rows.
      units: which of the six axes number the units of a row. The others number the
        members.
      wrapped: whether units are the wrapped diagonals of a row instead.
      axes: layouts of the leaves, from `bind`; None if the structure is not bound.
        Selection then infers them from the tree of scores.
      dense: shell patterns of leaf names, from `bind`; matching leaves need not fit,
        and each of their weights is a unit of its own.
    """

    name: str
    block: tuple[int, int]
    rows: tuple[int, ...]
    units: tuple[int, ...]
    wrapped: bool = False
    axes: fan_axes.TreeAxes | None = None
    dense: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Returns the name."""
        return self.name


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
    bias of a removed channel stays, so the next layer still receives the channel. Where
    the network has to get smaller, `select.coupled_channels` removes a channel from all
    layers that share it.

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


def diagonals() -> Structure:
    """Makes a structure of wrapped diagonals.

    A matrix of m inputs and n outputs has max(m, n) diagonals of min(m, n) weights,
    which wrap around at the longer side, so that each weight is on one. They are kept
    or removed as a whole. Each has one weight at every unit of the shorter side, and at
    most one at every unit of the longer side. All units of the shorter side thus keep
    the same number of weights. In a convolution, each position of the window is a set
    of inputs.

    Returns:
      The structure.

    Examples:
      >>> scores = {"kernel": jnp.array([[1.0, 5.0, 2.0], [2.0, 1.0, 5.0]])}
      >>> kept = select.top_k_per_layer(scores, {"kernel": 2}, structure=diagonals())
      >>> kept["kernel"]
      Array([[False,  True, False],
             [False, False,  True]], dtype=bool)

    References:
      Tyagi, Iyer, Renninger, Kanan, Zhu. Dynamic Sparse Training of Diagonally Sparse
      Networks. 2025. arXiv:2506.11449; which weights a diagonal has is that of the
      authors' code.
    """
    return Structure("diagonals()", (1, 1), (STACK,), (), wrapped=True)


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
      structure: structured sparsity, from `n_of_m`, `blocks`, `channels`, `fan_in` or
        `diagonals`; None is returned unchanged.
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
