"""The rule for reshapes: axes are merged and split without losing their labels."""

import math
from typing import Any

from jaxsparse.coupling.axis_labels import Axis, Labels
from jaxsparse.coupling.program import Equation, Program

UNFIT = "a reshape whose axes do not fit together"


def reshape(
    eqn: Equation, operands: list[Any], labels: Labels, program: Program
) -> list[tuple[Axis, ...]]:
    """Labels the axes of a reshaped array.

    Args:
      eqn: the equation.
      operands: axes of its operand.
      labels: the sets of labels.
      program: the program.

    Returns:
      The axes of the result.
    """
    before = program.avals[eqn.inputs[0]].shape
    after = program.avals[eqn.outputs[0]].shape
    if eqn.params.get("dimensions") is not None or 0 in before:
        for axis in operands[0]:
            labels.fix(axis, UNFIT)
        return [tuple(labels.constant(n, UNFIT) for n in after)]
    result: list[Axis] = []
    for old, new in _segments(before, after):
        axes = [operands[0][i] for i in old]
        result += _segment(axes, [after[i] for i in new], labels)
    return [tuple(result)]


def _segments(
    before: tuple[int, ...], after: tuple[int, ...]
) -> list[tuple[list[int], list[int]]]:
    """Pairs the shortest runs of axes with equal numbers of entries."""
    pairs: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        old, new = [i] if i < len(before) else [], [j] if j < len(after) else []
        i, j = i + len(old), j + len(new)
        while (a := math.prod(before[k] for k in old)) != (
            b := math.prod(after[k] for k in new)
        ):
            if a < b:
                old.append(i)
                i += 1
            else:
                new.append(j)
                j += 1
        pairs.append((old, new))
    return pairs


def _segment(axes: list[Axis], sizes: list[int], labels: Labels) -> list[Axis]:
    """Reshapes a run of axes to others with as many entries."""
    if len(axes) == len(sizes) == 1:
        return axes
    factors = []
    for axis in axes:
        for factor in axis:
            if len(factor) > 1:
                factors.append(factor)
            else:
                labels.fix((factor,), "indexing")
    merged = tuple(factors)
    wanted, product = [], 1
    for size in sizes:
        product *= size
        wanted.append(product)
    own, total = [], 1
    for factor in merged:
        total *= len(factor)
        own.append(total)
    parts = labels.refine(merged, sorted({*own, *wanted} - {1}))
    if parts is None:
        labels.fix(merged, UNFIT)
        return [labels.constant(size, UNFIT) for size in sizes]
    rest = list(parts)
    result = []
    for size in sizes:
        axis: tuple = ()
        while math.prod(len(factor) for factor in axis) < size:
            axis += (rest.pop(0),)
        result.append(axis or labels.fresh(1))
    return result
