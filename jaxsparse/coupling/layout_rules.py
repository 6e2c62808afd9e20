"""Rules for the labels of axes, for operations that only move entries."""

import math
from collections.abc import Callable

import numpy as np

from jaxsparse.coupling.axis_labels import Axis, Labels
from jaxsparse.coupling.program import Equation, Program
from jaxsparse.coupling.reshape_rule import reshape

Axes = tuple[Axis, ...]


def _broadcast(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Passes axes on; the length of new ones may change, unless it is 1."""
    result = [
        labels.fresh(n) if n > 1 else labels.constant(n, "an axis of length 1")
        for n in eqn.params["shape"]
    ]
    before = program.avals[eqn.inputs[0]].shape
    for i, to in enumerate(eqn.params["broadcast_dimensions"]):
        if before[i] == eqn.params["shape"][to]:
            result[to] = operands[0][i]
        else:
            labels.fix(operands[0][i], "an axis of length 1")
    return [tuple(result)]


def _iota(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Fixes the axis that is numbered."""
    del operands, program
    result = list(map(labels.fresh, eqn.params["shape"]))
    labels.fix(result[eqn.params["dimension"]], "positions ('iota')")
    return [tuple(result)]


def _transpose(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    del labels, program
    return [tuple(operands[0][i] for i in eqn.params["permutation"])]


def _reverse(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    del program
    result = list(operands[0])
    for i in eqn.params["dimensions"]:
        result[i] = (labels.flat(result[i], "'rev' of merged axes")[::-1],)
    return [tuple(result)]


def _squeeze(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Fixes an index that is picked out."""
    del program
    gone = set(eqn.params["dimensions"])
    for i in gone:
        labels.fix(operands[0][i], "indexing")
    return [tuple(a for i, a in enumerate(operands[0]) if i not in gone)]


def _slice(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    shape = program.avals[eqn.inputs[0]].shape
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    strides = eqn.params["strides"] or (1,) * len(shape)
    result = []
    for i, axis in enumerate(operands[0]):
        bounds = slice(starts[i], limits[i], strides[i])
        result.append(_sliced(axis, bounds, labels))
    return [tuple(result)]


def _sliced(axis: Axis, bounds: slice, labels: Labels) -> Axis:
    """Slices an axis; one of several factors if the slice keeps the others whole."""
    if len(axis) > 1 and bounds.step == 1:
        inner = math.prod(len(factor) for factor in axis[1:])
        if not (bounds.start % inner or bounds.stop % inner):
            first = axis[0][bounds.start // inner : bounds.stop // inner]
            if len(first) > 1:
                return (first, *axis[1:])
            labels.fix((first,), "indexing")
            return axis[1:]
    return (labels.flat(axis, "'slice' of merged axes")[bounds],)


def _split(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Slices along an axis; parts of equal length remain so."""
    del program
    along, sizes = eqn.params["axis"], eqn.params["sizes"]
    ends = np.cumsum(sizes).tolist()
    parts = [
        _sliced(operands[0][along], slice(end - size, end, 1), labels)
        for size, end in zip(sizes, ends, strict=True)
    ]
    if len(set(sizes)) == 1:
        for part in parts[1:]:
            labels.unify(parts[0], part, "'split' of merged axes")
    before, after = operands[0][:along], operands[0][along + 1 :]
    return [(*before, part, *after) for part in parts]


def _concatenate(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    del program
    along, result = eqn.params["dimension"], list(operands[0])
    reason = "'concatenate' of merged axes"
    for i in range(len(result)):
        if i == along:
            flats = [labels.flat(axes[i], reason) for axes in operands]
            result[i] = (np.concatenate(flats),)
            continue
        for axes in operands[1:]:
            labels.unify(result[i], axes[i], reason)
    return [tuple(result)]


def _stack(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Joins the axes of all operands; their number cannot change."""
    del program
    reason = "'stack' of merged axes"
    for axes in operands[1:]:
        for first, other in zip(operands[0], axes, strict=True):
            labels.unify(first, other, reason)
    along, new = eqn.params["axis"], labels.constant(len(operands), "operands")
    return [(*operands[0][:along], new, *operands[0][along:])]


def _unstack(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Fixes the axis whose indices become results of their own."""
    del program
    along = eqn.params["axis"]
    labels.fix(operands[0][along], "indexing")
    rest = (*operands[0][:along], *operands[0][along + 1 :])
    return [rest] * len(eqn.outputs)


def _tile(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Repeats axes; the number of copies cannot change."""
    del program
    pairs = zip(operands[0], eqn.params["reps"], strict=True)
    return [tuple(a if n == 1 else labels.constant(n, "copies") + a for a, n in pairs)]


def _pad(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Adds indices that may go, as many zeros as a width asks for, or drops some."""
    result = []
    shape = program.avals[eqn.outputs[0]].shape
    reason = "'pad' of merged axes"
    for axis, config, n in zip(
        operands[0], eqn.params["padding_config"], shape, strict=True
    ):
        low, high, interior = map(int, config)
        if not any(config):
            result.append(axis)
            continue
        if interior:
            labels.fix(axis, "'pad' between indices")
        flat = labels.flat(axis, reason)
        if labels.is_fixed(flat).all():
            result.append(labels.constant(n, "'pad' between indices"))
        else:
            flat = flat[max(-low, 0) : len(flat) - max(-high, 0)]
            new = [labels.fresh(max(side, 0))[0] for side in (low, high)]
            result.append((np.concatenate([new[0], flat, new[1]]),))
    return [tuple(result)]


def _gather(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Passes on axes that are taken whole, such as the features of an embedding."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    data, indices = operands
    shape = program.avals[eqn.outputs[0]].shape
    operand_shape = program.avals[eqn.inputs[0]].shape
    batching = tuple(getattr(numbers, "operand_batching_dims", ()))
    gone = {*numbers.collapsed_slice_dims, *batching}
    reason = f"indices ({eqn.name!r})"
    result: list[Axis | None] = [None] * len(shape)
    kept = [i for i in range(len(data)) if i not in gone]
    for i, to in zip(kept, numbers.offset_dims, strict=True):
        if sizes[i] == operand_shape[i] and i not in numbers.start_index_map:
            result[to] = data[i]
    places = [i for i in range(len(shape)) if i not in numbers.offset_dims]
    for to, axis in zip(places, indices[:-1], strict=True):
        result[to] = axis
    for axis in data:
        if not any(axis is r for r in result):
            labels.fix(axis, reason)
    if batching:
        for axis in indices:
            labels.fix(axis, reason)
    return [
        tuple(
            labels.constant(n, reason) if a is None else a
            for a, n in zip(result, shape, strict=True)
        )
    ]


def _dynamic_slice(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Passes on axes that are taken whole."""
    before = program.avals[eqn.inputs[0]].shape
    reason = f"indices ({eqn.name!r})"
    result = []
    for axis, n, size in zip(
        operands[0], before, eqn.params["slice_sizes"], strict=True
    ):
        if n != size:
            labels.fix(axis, reason)
        result.append(axis if n == size else labels.constant(size, reason))
    return [tuple(result)]


def _dynamic_update_slice(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Joins axes that are written whole."""
    shapes = [program.avals[number].shape for number in eqn.inputs[:2]]
    reason = f"indices ({eqn.name!r})"
    for i, (n, size) in enumerate(zip(*shapes, strict=True)):
        if n == size:
            labels.unify(operands[0][i], operands[1][i], reason)
            continue
        labels.fix(operands[0][i], reason)
        labels.fix(operands[1][i], reason)
    return [operands[0]]


RULES: dict[str, Callable[..., list[Axes]]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "iota": _iota,
    "pad": _pad,
    "reshape": reshape,
    "rev": _reverse,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
    "unstack": _unstack,
}
