"""Rules for the labels of axes, one for each kind of JAX primitive.

A rule receives the labels of the operands' axes, joins or fixes them, and returns those
of the results. What has no rule fixes all axes of its operands and results.
"""

import math
from collections.abc import Callable

import numpy as np

from jaxsparse.connectivity.jaxpr_rules import ENTRYWISE
from jaxsparse.coupling import reshape_rule
from jaxsparse.coupling.axis_labels import Axis, Labels
from jaxsparse.coupling.program import Equation, Program, readers

Axes = tuple[Axis, ...]
Rule = Callable[[Equation, list[Axes], Labels, Program], list[Axes]]

REDUCES = (
    *("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"),
    *("reduce_and", "reduce_or", "reduce_xor"),
)
CUMULATIVE = ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
WINDOWS = ("reduce_window_sum", "reduce_window_max", "reduce_window_min")


def label(program: Program) -> tuple[list[Axes], Labels]:
    """Labels the axes of all values of a program.

    Args:
      program: the program.

    Returns:
      For each value its axes, and the sets of labels.
    """
    labels = Labels()
    axes: list[Axes | None] = [None] * len(program.avals)
    for number in program.constants:
        axes[number] = _fixed(program, number, labels, "an array in the program")
    read = readers(program)
    for number in program.leaves.values():
        axes[number] = _leaf(program, number, labels, is_read=number in read)
    for number in program.inputs:
        axes[number] = _fixed(program, number, labels, "an axis of an input")
    for eqn in program.equations:
        rule = RULES.get(eqn.name, _opaque)
        results = rule(eqn, [axes[n] for n in eqn.inputs], labels, program)
        for number, result in zip(eqn.outputs, results, strict=True):
            axes[number] = result
    for number in program.outputs:
        for axis in axes[number]:
            labels.fix(axis, "an axis of an output")
    return axes, labels


def _leaf(program: Program, number: int, labels: Labels, *, is_read: bool) -> Axes:
    axes = tuple(map(labels.fresh, program.avals[number].shape))
    for axis in axes:
        if not is_read:
            labels.fix(axis, "no operation reads the leaf")
        if len(axis[0]) < 2:
            labels.fix(axis, "an axis of length 1")
    return axes


def _fixed(program: Program, number: int, labels: Labels, reason: str) -> Axes:
    shape = program.avals[number].shape
    return tuple(labels.constant(n, reason) for n in shape)


def _opaque(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Fixes everything."""
    reason = f"{eqn.name!r}, which is not followed"
    for axes in operands:
        for axis in axes:
            labels.fix(axis, reason)
    return [_fixed(program, number, labels, reason) for number in eqn.outputs]


def _entrywise(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Joins the axes of all operands; axes of length 1 are broadcast."""
    shapes = [program.avals[n].shape for n in eqn.outputs]
    reason = f"factors of {eqn.name!r} that do not fit together"
    result = []
    for i, n in enumerate(shapes[0]):
        chosen = None
        for number, axes in zip(eqn.inputs, operands, strict=True):
            shape = program.avals[number].shape
            if len(shape) != len(shapes[0]):  # a scalar
                continue
            if shape[i] != n:
                labels.fix(axes[i], "an axis of length 1")
            elif chosen is None:
                chosen = axes[i]
            else:
                labels.unify(chosen, axes[i], reason)
        result.append(labels.fresh(n) if chosen is None else chosen)
    return [tuple(result)] * len(shapes)


def _each(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    del eqn, labels, program
    return operands


def _broadcast(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Passes axes on; the length of new ones may change."""
    result = list(map(labels.fresh, eqn.params["shape"]))
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
        elif interior or all(labels.is_fixed(f).all() for f in axis):
            labels.fix(axis, "'pad' between indices")
            result.append(labels.constant(n, "'pad' between indices"))
        else:
            flat = labels.flat(axis, reason)
            flat = flat[max(-low, 0) : len(flat) - max(-high, 0)]
            new = [labels.fresh(max(side, 0))[0] for side in (low, high)]
            result.append((np.concatenate([new[0], flat, new[1]]),))
    return [tuple(result)]


def _reduce(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    del labels, program
    gone = set(eqn.params["axes"])
    return [tuple(a for i, a in enumerate(operands[0]) if i not in gone)]


def _find_extreme(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Fixes the axes whose indices are returned."""
    for i in eqn.params["axes"]:
        labels.fix(operands[0][i], f"positions ({eqn.name!r})")
    return _reduce(eqn, operands, labels, program)


def _along(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Fixes the axis along which entries are sorted or accumulated."""
    n = len(program.avals[eqn.inputs[0]].shape)
    along = eqn.params.get("axis", eqn.params.get("dimension", n - 1)) % n
    (axes,) = set(map(len, operands))
    for i in range(axes):
        for other in operands:
            if i == along:
                labels.fix(other[i], f"order along an axis ({eqn.name!r})")
            labels.unify(operands[0][i], other[i], f"{eqn.name!r} of merged axes")
    if eqn.name != "top_k":
        return operands
    chosen = labels.constant(eqn.params["k"], "order along an axis ('top_k')")
    return [(*operands[0][:-1], chosen)] * len(eqn.outputs)


def _window(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Fixes the axes along which windows extend."""
    result = []
    shape = program.avals[eqn.outputs[0]].shape
    keys = ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    for i, axis in enumerate(operands[0]):
        steps = {eqn.params[key][i] for key in keys}
        if steps == {1} and tuple(eqn.params["padding"][i]) == (0, 0):
            result.append(axis)
            continue
        labels.fix(axis, f"windows ({eqn.name!r})")
        result.append(labels.constant(shape[i], f"windows ({eqn.name!r})"))
    return [tuple(result)]


def _dot(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    del program
    (over_l, over_r), (batch_l, batch_r) = eqn.params["dimension_numbers"]
    left, right = operands
    pairs = [*zip(over_l, over_r, strict=True), *zip(batch_l, batch_r, strict=True)]
    for i, j in pairs:
        labels.unify(left[i], right[j], "factors of a product that do not fit together")
    first = [a for i, a in enumerate(left) if i not in (*over_l, *batch_l)]
    second = [a for j, a in enumerate(right) if j not in (*over_r, *batch_r)]
    return [(*(left[i] for i in batch_l), *first, *second)]


def _convolution(
    eqn: Equation, operands: list[Axes], labels: Labels, program: Program
) -> list[Axes]:
    """Joins input channels; with groups, all channels of a group."""
    if eqn.params["batch_group_count"] != 1:
        return _opaque(eqn, operands, labels, program)
    lhs, rhs, out = eqn.params["dimension_numbers"]
    images, kernel = operands
    shape = program.avals[eqn.outputs[0]].shape
    space = "positions in space (convolution)"
    for i in lhs[2:]:
        labels.fix(images[i], space)
    for i in rhs[2:]:
        labels.fix(kernel[i], space)
    groups = eqn.params["feature_group_count"]
    if groups == 1:
        fit = "factors of a convolution that do not fit together"
        labels.unify(images[lhs[1]], kernel[rhs[1]], fit)
    else:
        labels.fix(kernel[rhs[1]], "inputs of a group of a convolution")
        for axis in (images[lhs[1]], kernel[rhs[0]]):
            flat = labels.flat(axis, "groups of merged axes").reshape(groups, -1)
            for column in flat.T[1:]:
                labels.join(flat[:, 0], column)
        pair = [
            labels.flat(a, "groups of merged axes").reshape(groups, -1)[:, 0]
            for a in (images[lhs[1]], kernel[rhs[0]])
        ]
        labels.join(*pair)
    result = [labels.constant(n, space) for n in shape]
    result[out[0]], result[out[1]] = images[lhs[0]], kernel[rhs[0]]
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


RULES: dict[str, Rule] = (
    dict.fromkeys((*ENTRYWISE, "mul"), _entrywise)
    | dict.fromkeys(REDUCES, _reduce)
    | dict.fromkeys(("argmax", "argmin"), _find_extreme)
    | dict.fromkeys((*CUMULATIVE, "sort", "top_k"), _along)
    | dict.fromkeys(WINDOWS, _window)
    | dict.fromkeys(("device_put", "optimization_barrier"), _each)
    | {
        "broadcast_in_dim": _broadcast,
        "concatenate": _concatenate,
        "conv_general_dilated": _convolution,
        "dot_general": _dot,
        "dynamic_slice": _dynamic_slice,
        "dynamic_update_slice": _dynamic_update_slice,
        "gather": _gather,
        "iota": _iota,
        "pad": _pad,
        "reshape": reshape_rule.reshape,
        "rev": _reverse,
        "select_n": _entrywise,
        "slice": _slice,
        "split": _split,
        "squeeze": _squeeze,
        "transpose": _transpose,
    }
)
