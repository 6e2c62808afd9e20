"""The layout of one weight: what its axes are, and its view as matrices."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Shaped

from jaxsparse import arguments


@dataclasses.dataclass(frozen=True)
class FanAxes:
    """The layout of one weight. Negative axes count from the last.

    Attributes:
      inputs: axes that are contracted with the input's features; their product is the
        number of inputs.
      outputs: axes of the output's features, likewise.
      positions: axes of a kernel window; None for all axes not named otherwise. Fans
        count every position.
      stack: axes along which separate matrices lie: layers under `nn.scan`, or the
        channels of a depthwise convolution.
      groups: into how many equal groups the outputs are divided, in order, each with
        inputs of its own. They are separate matrices too.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    positions: tuple[int, ...] | None = None
    stack: tuple[int, ...] = ()
    groups: int = 1

    def __post_init__(self) -> None:
        """Refuses a number of groups that is not a positive integer."""
        if isinstance(self.groups, bool) or not isinstance(self.groups, int):
            raise TypeError(f"groups: expected an integer, got {self.groups!r}")
        if self.groups < 1:
            raise ValueError(f"groups: expected 1 or more, got {self.groups}")


FLAX = FanAxes((-2,), (-1,))
EQUINOX = FanAxes((1,), (0,))
TORCH = EQUINOX
DEPTHWISE = FanAxes((-2,), (), stack=(-1,))


class Fans(NamedTuple):
    """The sizes of a leaf by its layout; their product is its size.

    Attributes:
      stack: how many separate matrices there are, groups included.
      positions: the kernel window.
      inputs: of one matrix at one position.
      outputs: of one matrix at one position.
    """

    stack: int
    positions: tuple[int, ...]
    inputs: int
    outputs: int


Layout = FanAxes | str


def parse(layout: Layout) -> FanAxes:
    """Reads the short form of a layout.

    Args:
      layout: one letter an axis: "i" input, "o" output, "p" position, "s" stack.
        "..." stands once for any number of positions, and "/4" at the end for 4
        groups. A `FanAxes` is returned as it came.

    Returns:
      The layout.

    Raises:
      ValueError: if it is not of that form.

    Examples:
      >>> parse("ioo")
      FanAxes(inputs=(0,), outputs=(1, 2), positions=(), stack=(), groups=1)
    """
    if isinstance(layout, FanAxes):
        return layout
    wrong = ValueError(
        f"axes: expected a layout such as '...io', 'oi...', 'ioo' or '...io/4', of the "
        f"letters i (input), o (output), p (position) and s (stack), got {layout!r}"
    )
    if not isinstance(layout, str):
        raise wrong
    letters, slash, groups = layout.partition("/")
    front, dots, back = letters.partition("...")
    if not letters or set(front + back) - set("iops") or (slash and not groups):
        raise wrong
    if slash and not (groups.isdecimal() and int(groups)):
        raise wrong
    places = [*enumerate(front), *((i - len(back), x) for i, x in enumerate(back))]
    found = {kind: tuple(i for i, x in places if x == kind) for kind in "iops"}
    return FanAxes(
        found["i"],
        found["o"],
        None if dots else found["p"],
        found["s"],
        int(groups or 1),
    )


@arguments.check(axes=arguments.instance(FanAxes))
def fans(axes: FanAxes, name: str, shape: tuple[int, ...]) -> Fans:
    """Counts a leaf's matrices, positions, inputs and outputs.

    Args:
      axes: its layout.
      name: what to call it in messages.
      shape: of the leaf.

    Returns:
      The sizes.

    Raises:
      ValueError: if the layout does not fit the shape, naming the leaf.

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
            f"{name}: expected outputs that {axes.groups} groups divide, got "
            f"{math.prod(outputs)}, of shape {shape}; correct `axes=`"
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
    """Lays a leaf out as matrices: [stack, *positions, inputs, outputs].

    Args:
      axes: its layout.
      name: what to call it in messages.
      leaf: of weights, scores or masks. One that is sharded may be gathered.

    Returns:
      The same values; an ordinary kernel only gets one more axis.

    Raises:
      ValueError: as `fans`.
    """
    stack, positions, inputs, outputs = fans(axes, name, leaf.shape)
    order = sum(_parts(axes, name, leaf.shape), ())
    moved = leaf.transpose(order)
    if axes.groups > 1:
        by_group = (stack // axes.groups, *positions, inputs, axes.groups, outputs)
        rank = len(by_group)
        ahead = (0, rank - 2, *range(1, rank - 2), rank - 1)
        moved = moved.reshape(by_group).transpose(ahead)
    return moved.reshape((stack, *positions, inputs, outputs))


def from_matrices(
    axes: FanAxes,
    name: str,
    matrices: Shaped[Array, "stack ..."],
    shape: tuple[int, ...],
) -> Shaped[Array, "..."]:
    """Undoes `to_matrices`.

    Args:
      axes: the leaf's layout.
      name: what to call it in messages.
      matrices: what `to_matrices` returns for the leaf.
      shape: of the leaf.

    Returns:
      The values in that shape.

    Raises:
      ValueError: as `fans`.
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
    """Lists the axes of stack, positions, inputs and outputs, all from 0 on."""
    rank = len(shape)
    named = (axes.stack, axes.positions or (), axes.inputs, axes.outputs)
    flat = [axis for part in named for axis in part]
    here = [axis % rank for axis in flat if -rank <= axis < rank]
    rest = tuple(axis for axis in range(rank) if axis not in here)
    if len(here) < len(flat) or len(set(here)) < len(here):
        raise ValueError(
            f"{name}: expected two or more axes, inputs {axes.inputs}, outputs "
            f"{axes.outputs} and stack {axes.stack} different ones of them, got shape "
            f"{shape}; say with `axes=` which are which, or leave the leaf out with "
            "`prunable=`"
        )
    if axes.positions is not None and rest:
        raise ValueError(
            f"{name}: expected a layout for all axes of shape {shape}, got none for "
            f"{rest}; correct `axes=`, where '...' stands for further positions"
        )
    stack, positions, inputs, outputs = (
        tuple(axis % rank for axis in part) for part in named
    )
    return stack, rest if axes.positions is None else positions, inputs, outputs
