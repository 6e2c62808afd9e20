"""Rules for the labels of axes, one for each kind of JAX primitive.

A rule receives the labels of the operands' axes, joins or fixes them, and returns those
of the results. What has no rule fixes all axes of its operands and results.
"""

from collections.abc import Callable

from jaxsparse.connectivity.jaxpr_rules import ENTRYWISE
from jaxsparse.coupling import layout_rules
from jaxsparse.coupling.axis_labels import Labels
from jaxsparse.coupling.layout_rules import Axes
from jaxsparse.coupling.program import Equation, Program, readers

Rule = Callable[[Equation, list[Axes], Labels, Program], list[Axes]]

REDUCES = (
    *("reduce_sum", "reduce_max", "reduce_min", "reduce_prod"),
    *("reduce_and", "reduce_or", "reduce_xor"),
)
CUMULATIVE = ("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
WINDOWS = ("reduce_window_sum", "reduce_window_max", "reduce_window_min")
# How often the factors that have units are chosen anew. Each time costs as much as the
# first, and equal layers share their choices.
MOST_TRIALS = 24


def label(program: Program) -> tuple[list[Axes], Labels]:
    """Labels the axes of all values of a program.

    Where only one of several factors of an axis can have units, it is the first one. If
    some of them end fixed, another is taken if more indices of leaves are free then.

    Args:
      program: the program.

    Returns:
      For each value its axes, and the sets of labels.
    """
    axes, labels = _label(program, {})
    free, others = _num_free(program, axes, labels), labels.alternatives()
    trials = MOST_TRIALS
    while others and trials:
        trial, trials = _label(program, others.pop(0)), trials - 1
        count = _num_free(program, *trial)
        if count > free:
            (axes, labels), free = trial, count
            others = labels.alternatives()
    return axes, labels


def _num_free(program: Program, axes: list[Axes], labels: Labels) -> int:
    """Counts the indices of leaves that can be removed."""
    return sum(
        int((~labels.is_fixed(axis[0])).sum())
        for number in program.leaves.values()
        for axis in axes[number]
    )


def _label(program: Program, taken: dict[int, int]) -> tuple[list[Axes], Labels]:
    """Labels the axes with a given choice of factors; see `Labels`."""
    labels = Labels(taken)
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
    result = list(operands[0])
    result[along] = labels.constant(eqn.params["k"], "order along an axis ('top_k')")
    return [tuple(result)] * len(eqn.outputs)


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


RULES: dict[str, Rule] = (
    layout_rules.RULES
    | dict.fromkeys((*ENTRYWISE, "mul"), _entrywise)
    | dict.fromkeys(REDUCES, _reduce)
    | dict.fromkeys(("argmax", "argmin"), _find_extreme)
    | dict.fromkeys((*CUMULATIVE, "sort", "top_k"), _along)
    | dict.fromkeys(WINDOWS, _window)
    | dict.fromkeys(("device_put", "optimization_barrier"), _each)
    | {
        "conv_general_dilated": _convolution,
        "dot_general": _dot,
        "select_n": _entrywise,
    }
)
