"""Layout of a single weight: what its axes are, and its view as matrices."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Shaped

from jaxsparse import arguments


@dataclasses.dataclass(frozen=True)
class FanAxes:
    """Layout of a weight. Negative axes count from the last.

    Attributes:
      inputs: axes that are contracted with the input's features. The product of their
        sizes is the number of inputs.
      outputs: axes of the output's features. The product of their sizes is the number
        of outputs.
      positions: axes of the kernel window; None for all axes that the other fields do
        not name. Fans count every position.
      stack: axes along which separate matrices are stacked: layers under `nn.scan`, or
        the channels of a depthwise convolution.
      groups: number of groups, 1 or more. The outputs are divided, in order, into this
        many equal groups, each with its own inputs; groups are separate matrices, too.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    positions: tuple[int, ...] | None = None
    stack: tuple[int, ...] = ()
    groups: int = 1

    def __post_init__(self) -> None:
        """Checks that the number of groups is a positive integer."""
        if isinstance(self.groups, bool) or not isinstance(self.groups, int):
            raise TypeError(f"groups: expected an integer, got {self.groups!r}")
        if self.groups < 1:
            raise ValueError(f"groups: expected 1 or more, got {self.groups}")


FLAX = FanAxes((-2,), (-1,))
EQUINOX = FanAxes((1,), (0,))
TORCH = EQUINOX
DEPTHWISE = FanAxes((-2,), (), stack=(-1,))


class Fans(NamedTuple):
    """Sizes of a leaf by its layout. The product of all sizes is the size of the leaf.

    Attributes:
      stack: number of separate matrices, groups included.
      positions: shape of the kernel window.
      inputs: number of inputs of one matrix at one position.
      outputs: number of outputs of one matrix at one position.
    """

    stack: int
    positions: tuple[int, ...]
    inputs: int
    outputs: int


Layout = FanAxes | str


def parse(layout: Layout) -> FanAxes:
    """Parses the string form of a layout.

    Args:
      layout: one letter per axis: "i" for input, "o" for output, "p" for position and
        "s" for stack. A single "..." stands for any number of positions, and a suffix
        such as "/4" gives the number of groups. A `FanAxes` is returned unchanged.

    Returns:
      The layout.

    Raises:
      ValueError: if the layout does not have this form.

    Examples:
      >>> parse("ioo")
      FanAxes(inputs=(0,), outputs=(1, 2), positions=(), stack=(), groups=1)
    """
    if isinstance(layout, FanAxes):
        return layout
    error = ValueError(
        f"axes: expected a layout such as '...io', 'oi...', 'ioo' or '...io/4', of the "
        f"letters i (input), o (output), p (position) and s (stack), got {layout!r}"
    )
    if not isinstance(layout, str):
        raise error
    letters, slash, groups = layout.partition("/")
    front, dots, back = letters.partition("...")
    if not letters or set(front + back) - set("iops") or (slash and not groups):
        raise error
    if slash and not (groups.isdecimal() and int(groups)):
        raise error
    # Letters after "..." count from the last axis, since the rank is not known here.
    indexed = [*enumerate(front), *((i - len(back), x) for i, x in enumerate(back))]
    axes_by_kind = {kind: tuple(i for i, x in indexed if x == kind) for kind in "iops"}
    return FanAxes(
        axes_by_kind["i"],
        axes_by_kind["o"],
        None if dots else axes_by_kind["p"],
        axes_by_kind["s"],
        int(groups or 1),
    )


@arguments.check(axes=arguments.instance(FanAxes))
def fans(axes: FanAxes, name: str, shape: tuple[int, ...]) -> Fans:
    """Computes the numbers of matrices, positions, inputs and outputs of a leaf.

    Args:
      axes: layout of the leaf.
      name: name of the leaf in error messages.
      shape: shape of the leaf.

    Returns:
      The sizes.

    Raises:
      ValueError: if the layout does not fit the shape; the message names the leaf.
      TypeError: if `axes` is not a `FanAxes`.

    Examples:
      >>> fans(parse("ioo"), "query/kernel", (64, 8, 8))
      Fans(stack=1, positions=(), inputs=64, outputs=64)
      >>> fans(DEPTHWISE, "conv/kernel", (3, 3, 1, 32))
      Fans(stack=32, positions=(3, 3), inputs=1, outputs=1)
    """
    stack, positions, inputs, outputs = (
        tuple(shape[axis] for axis in part) for part in _parts(axes, name, shape)
    )
    if math.prod(outputs) % axes.groups:
        raise ValueError(
            f"{name}: expected a number of outputs divisible by {axes.groups} groups, "
            f"got {math.prod(outputs)}, of shape {shape}; correct `axes=`"
        )
    return Fans(
        math.prod(stack) * axes.groups,
        positions,
        math.prod(inputs),
        math.prod(outputs) // axes.groups,
    )


def to_matrices(
    axes: FanAxes, name: str, leaf: Shaped[Array, "..."]
) -> Shaped[Array, "stack ..."]:
    """Converts a leaf to matrices: [stack, *positions, inputs, outputs].

    A sharded leaf may be gathered.

    Args:
      axes: layout of the leaf.
      name: name of the leaf in error messages.
      leaf: weights, scores or masks of the leaf.

    Returns:
      The same values. For a dense or convolution kernel of Flax, this only adds an axis
      of size 1 in front.

    Raises:
      ValueError: if the layout does not fit the shape; the message names the leaf.
      TypeError: if `axes` is not a `FanAxes`.
    """
    stack, positions, inputs, outputs = fans(axes, name, leaf.shape)
    order = sum(_parts(axes, name, leaf.shape), ())
    moved = leaf.transpose(order)
    # Groups divide the outputs, the last axis. They move to the front, behind the
    # stacked axes, because they are separate matrices.
    if axes.groups > 1:
        by_group = (stack // axes.groups, *positions, inputs, axes.groups, outputs)
        rank = len(by_group)
        grouped_order = (0, rank - 2, *range(1, rank - 2), rank - 1)
        moved = moved.reshape(by_group).transpose(grouped_order)
    return moved.reshape((stack, *positions, inputs, outputs))


def from_matrices(
    axes: FanAxes,
    name: str,
    matrices: Shaped[Array, "stack ..."],
    shape: tuple[int, ...],
) -> Shaped[Array, "..."]:
    """Converts matrices back to a leaf, the inverse of `to_matrices`.

    Args:
      axes: layout of the leaf.
      name: name of the leaf in error messages.
      matrices: array [stack, *positions, inputs, outputs], as `to_matrices` returns.
      shape: shape of the leaf.

    Returns:
      The same values in that shape.

    Raises:
      ValueError: if the layout does not fit the shape; the message names the leaf.
      TypeError: if `axes` is not a `FanAxes`.
    """
    stack, positions, inputs, outputs = fans(axes, name, shape)
    order = sum(_parts(axes, name, shape), ())
    if axes.groups > 1:
        by_group = (stack // axes.groups, axes.groups, *positions, inputs, outputs)
        rank = len(by_group)
        back = (0, *range(2, rank - 1), 1, rank - 1)
        matrices = matrices.reshape(by_group).transpose(back)
    moved = matrices.reshape(tuple(shape[axis] for axis in order))
    return moved.transpose(tuple(int(axis) for axis in np.argsort(order)))


def _parts(
    axes: FanAxes, name: str, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
    """Lists the axes of stack, positions, inputs and outputs as nonnegative integers.

    Raises:
      ValueError: if the layout does not fit the shape.
    """
    rank = len(shape)
    named = (axes.stack, axes.positions or (), axes.inputs, axes.outputs)
    listed = [axis for part in named for axis in part]
    valid = [axis % rank for axis in listed if -rank <= axis < rank]
    unassigned = tuple(axis for axis in range(rank) if axis not in valid)
    if len(valid) < len(listed) or len(set(valid)) < len(valid):
        raise ValueError(
            f"{name}: expected two or more axes, with different ones as inputs "
            f"{axes.inputs}, outputs {axes.outputs} and stack {axes.stack}, got shape "
            f"{shape}; pass the layout as `axes=`, or exclude the leaf with "
            "`prunable=`"
        )
    if axes.positions is not None and unassigned:
        raise ValueError(
            f"{name}: expected a layout for all axes of shape {shape}, got none for "
            f"{unassigned}; correct `axes=`, in which '...' stands for further "
            "positions"
        )
    stack, positions, inputs, outputs = (
        tuple(axis % rank for axis in part) for part in named
    )
    return stack, unassigned if axes.positions is None else positions, inputs, outputs
