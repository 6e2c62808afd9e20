"""How removed units and shifts of operands shift the results, by kind of primitive."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from jaxsparse.compaction import arithmetic
from jaxsparse.compaction.removed_units import Removed
from jaxsparse.connectivity.jaxpr_rules import ENTRYWISE
from jaxsparse.coupling.axis_rules import REDUCES, WINDOWS
from jaxsparse.coupling.program import Equation

Array = np.ndarray
Indices = Bool[np.ndarray, " _"]
Reduced = dict[tuple[int, int], Indices]

TINY = 1e-5  # relative to its terms, a sum below this is rounding


class Change(NamedTuple):
    """How the results of an equation change.

    Attributes:
      shifts: what is added to each result.
      bad: where the change is not a constant that is added.
      causes: units among the operands' indices that cause it.
    """

    shifts: list[Array]
    bad: list[Array]
    causes: frozenset[int]


def shift_of(number: int, state: Any) -> Array:
    """Returns the shift of a value.

    Args:
      number: number of the value.
      state: the pass.
    """
    shape = state.removed.labeled.program.avals[number].shape
    return state.shifts.get(number, np.broadcast_to(np.float32(0), shape))


def reduced_indices(eqn: Equation, removed: Removed) -> Reduced:
    """Finds removed indices of the axes over which an equation sums or reduces.

    Args:
      eqn: the equation.
      removed: the units that are removed.

    Returns:
      For pairs of operand and axis, which indices are removed.
    """
    axes = removed.labeled.axes
    if eqn.name == "dot_general":
        (over, _), _ = eqn.params["dimension_numbers"]
        places = [(0, i) for i in over]
    elif eqn.name == "conv_general_dilated" and eqn.params["feature_group_count"] == 1:
        places = [(0, eqn.params["dimension_numbers"].lhs_spec[1])]
    elif eqn.name in REDUCES:
        places = [(0, int(i)) for i in eqn.params["axes"]]  # may be numpy's
    else:
        return {}
    return {(k, i): removed.along(axes[eqn.inputs[k]][i]) for k, i in places}


def anything(eqn: Equation, reduced: Reduced, state: Any) -> Change:
    """Lets no shift pass.

    Args:
      eqn: the equation.
      reduced: removed indices that it reduces over.
      state: the pass.
    """
    del reduced
    avals = [state.removed.labeled.program.avals[n] for n in eqn.outputs]
    bad = [np.broadcast_to(True, aval.shape) for aval in avals]
    shifts = [np.broadcast_to(np.float32(0), aval.shape) for aval in avals]
    return Change(shifts, bad, frozenset())


def _recomputed(eqn: Equation, state: Any) -> Array:
    """Computes the shift of a result from shifted constants."""
    program = state.removed.labeled.program
    after = [
        state.entries.values[n] + shift_of(n, state)
        if n in state.shifts
        else state.entries.values[n]
        for n in eqn.inputs
    ]
    with np.errstate(all="ignore"):
        (new,) = arithmetic.evaluate(eqn, program, after)
        (old,) = arithmetic.evaluate(
            eqn, program, [state.entries.values[n] for n in eqn.inputs]
        )
        return np.nan_to_num(np.asarray(new, np.float64) - old)


def _entrywise(eqn: Equation, reduced: Reduced, state: Any) -> Change:
    """Adds, scales or selects shifts; recomputes constants."""
    del reduced
    entries, number = state.entries, eqn.outputs[0]
    aval = state.removed.labeled.program.avals[number]
    shifts = [np.broadcast_to(shift_of(n, state), aval.shape) for n in eqn.inputs]
    moved = [shift != 0 for shift in shifts]
    rule = LINEAR.get(eqn.name)
    if rule is None or not jnp.issubdtype(aval.dtype, jnp.floating):
        shift, bad = np.zeros(aval.shape), np.logical_or.reduce(moved)
    else:
        shift, bad = rule(eqn, shifts, moved, state)
    operands = [np.broadcast_to(entries.varies[n], aval.shape) for n in eqn.inputs]
    fixed = ~np.logical_or.reduce(operands)
    if fixed.any() and rule not in (_sum, _negative):
        shift = np.where(fixed, _recomputed(eqn, state), shift)
        bad = bad & ~fixed
    return Change([shift], [bad], frozenset())


def _sum(eqn: Equation, shifts: list, moved: list, state: Any) -> tuple[Array, Array]:
    del moved, state
    a, b = shifts
    total = a - b if eqn.name == "sub" else a + b
    # What a bias has taken up leaves only rounding behind.
    small = np.abs(total) <= TINY * (np.abs(a) + np.abs(b))
    return np.where(small, 0, total), np.broadcast_to(False, total.shape)


def _negative(
    eqn: Equation, shifts: list, moved: list, state: Any
) -> tuple[Array, Array]:
    del eqn, moved, state
    return -shifts[0], np.broadcast_to(False, shifts[0].shape)


def _factor(eqn: Equation, i: int, state: Any, shape: Any) -> tuple[Array, Array]:
    """Returns an operand after the change, and where it varies."""
    number = eqn.inputs[i]
    value = state.entries.values[number] + shift_of(number, state)
    varies = state.entries.varies[number]
    return np.broadcast_to(value, shape), np.broadcast_to(varies, shape)


def _times(eqn: Equation, shifts: list, moved: list, state: Any) -> tuple[Array, Array]:
    shape = shifts[0].shape
    pair = [_factor(eqn, i, state, shape) for i in (0, 1)]
    (a, varies_a), (b, varies_b) = pair
    # (x + s)(c + t) - xc with x or c varying: only the shift of x may differ from 0.
    bad = (varies_a & moved[1]) | (varies_b & moved[0])
    return shifts[0] * b + (a - shifts[0]) * shifts[1], bad


def _over(eqn: Equation, shifts: list, moved: list, state: Any) -> tuple[Array, Array]:
    divisor, varies = _factor(eqn, 1, state, shifts[0].shape)
    with np.errstate(all="ignore"):
        shift = np.nan_to_num(shifts[0] / np.where(varies, 1, divisor))
    return shift, moved[1] | (varies & moved[0])


def _choice(
    eqn: Equation, shifts: list, moved: list, state: Any
) -> tuple[Array, Array]:
    which, *cases = shifts
    del which
    first = cases[0]
    value, varies = _factor(eqn, 0, state, first.shape)
    chosen = np.choose(np.where(varies, 0, value).astype(int), cases)
    equal = np.logical_and.reduce([case == first for case in cases])
    return chosen, moved[0] | (varies & ~equal)


LINEAR: dict[str, Callable[..., tuple[Array, Array]]] = {
    "add": _sum,
    "add_any": _sum,
    "div": _over,
    "mul": _times,
    "neg": _negative,
    "select_n": _choice,
    "sub": _sum,
}


class _Operand(NamedTuple):
    """One side of a product.

    Attributes:
      before: the constant part, 0 where it varies.
      after: the same after the change, 0 at removed indices.
      varies: where it varies.
    """

    before: Array
    after: Array
    varies: Array


def _operand(number: int, axes: dict[int, Indices], state: Any) -> _Operand:
    before = np.asarray(state.entries.values[number])
    after = before + shift_of(number, state)
    for i, gone in axes.items():
        if gone.any():
            shape = [1] * before.ndim
            shape[i] = len(gone)
            after = np.where(gone.reshape(shape), 0, after)
    return _Operand(before, after, state.entries.varies[number])


def _moved_by(operand: _Operand) -> Array:
    """Returns what is added to an operand; 0 for an infinity that stays."""
    same = operand.after == operand.before
    with np.errstate(invalid="ignore"):
        return np.where(same, 0, operand.after - operand.before)


def _product_change(
    op: Callable[[Array, Array], Array], left: _Operand, right: _Operand
) -> tuple[Array, Array]:
    """Returns the shift of a product, and where it is not a constant."""
    by_left, by_right = map(_moved_by, (left, right))
    shift: Any = 0.0
    bad: Any = 0.0
    if by_left.any():
        shift = op(by_left, right.after)
        bad = op((by_left != 0) * 1.0, right.varies * 1.0)
    if by_right.any():
        shift = shift + op(left.before, by_right)
        bad = bad + op(left.varies * 1.0, (by_right != 0) * 1.0)
    return np.asarray(shift), np.asarray(bad > 0.5)


def _dot(eqn: Equation, reduced: Reduced, state: Any) -> Change:
    """Sums shifts, and leaves out removed indices."""
    (over, over_r), _ = eqn.params["dimension_numbers"]
    left = _operand(eqn.inputs[0], {i: reduced[0, i] for i in over}, state)
    axes_r = {j: reduced[0, i] for i, j in zip(over, over_r, strict=True)}
    right = _operand(eqn.inputs[1], axes_r, state)
    shift, bad = _product_change(lambda a, b: arithmetic.dot(eqn, a, b), left, right)
    number = eqn.outputs[0]
    shape = state.removed.labeled.program.avals[number].shape
    shift, bad = (np.broadcast_to(x, shape) for x in (shift, bad))
    both = _gone(left, over, reduced) & left.varies, right.varies
    if both[0].any() and both[1].any():  # products of two that vary, both removed
        bad = bad | (arithmetic.dot(eqn, *(x * 1.0 for x in both)) > 0.5)
    # Which removed indices reach a result that matters.
    relevant = state.need[number] & ~state.removed.entries(number)
    sides = [(x.varies | (x.before != 0)).astype(np.float32) for x in (left, right)]
    pair = arithmetic.matrices(eqn, *sides)
    weights = relevant.astype(np.float32)
    weights = weights.reshape(-1, pair.left.shape[1], pair.right.shape[2])
    reach = np.matmul(pair.left.swapaxes(1, 2), weights) * pair.right
    grid = reach.sum((0, 2)).reshape([len(reduced[0, i]) for i in over])
    causes: set[int] = set()
    for k, i in enumerate(over):
        others = tuple(j for j in range(grid.ndim) if j != k)
        indices = np.flatnonzero(reduced[0, i] & (grid.sum(others) > 0))
        axis = state.removed.labeled.axes[eqn.inputs[0]][i]
        causes |= state.removed.owners(axis, indices)
    return Change([shift], [bad], frozenset(causes))


def _gone(operand: _Operand, over: Any, reduced: Reduced) -> Array:
    found = np.broadcast_to(False, operand.before.shape)
    for i in over:
        shape = [1] * found.ndim
        shape[i] = -1
        found = found | reduced[0, i].reshape(shape)
    return found


def _convolution(eqn: Equation, reduced: Reduced, state: Any) -> Change:
    """Sums shifts, and leaves out removed channels."""
    spec = eqn.params["dimension_numbers"]
    number, (i, j) = eqn.outputs[0], (spec.lhs_spec[1], spec.rhs_spec[1])
    gone = reduced.get((0, i))
    axes = [{}, {}] if gone is None else [{i: gone}, {j: gone}]
    left, right = (_operand(n, a, state) for n, a in zip(eqn.inputs, axes, strict=True))
    shift, bad = _product_change(
        lambda a, b: arithmetic.convolve(eqn, a, b), left, right
    )
    shape = state.removed.labeled.program.avals[number].shape
    shift, bad = (np.broadcast_to(x, shape) for x in (shift, bad))
    if gone is None:
        return Change([shift], [bad], frozenset())
    # Which removed channels reach a result that matters.
    relevant = state.need[number] & ~state.removed.entries(number)
    out = spec.out_spec[1]
    matters = relevant.any(tuple(k for k in range(relevant.ndim) if k != out))
    taps = right.varies | (right.before != 0)
    taps = np.moveaxis(taps, (j, spec.rhs_spec[0]), (0, 1))
    reads = taps.reshape(*taps.shape[:2], -1).any(-1) & matters
    emits = left.varies | (left.before != 0)
    emits = emits.any(tuple(k for k in range(emits.ndim) if k != i))
    indices = np.flatnonzero(gone & emits & reads.any(1))
    axis = state.removed.labeled.axes[eqn.inputs[0]][i]
    return Change([shift], [bad], frozenset(state.removed.owners(axis, indices)))


def _reduction(eqn: Equation, reduced: Reduced, state: Any) -> Change:
    """Sums shifts, and leaves out removed entries; other reductions keep them."""
    number = eqn.inputs[0]
    axes = tuple(eqn.params["axes"])
    operand = _operand(number, {i: reduced[0, i] for i in axes}, state)
    gone = _gone(operand, axes, reduced)
    difference = _moved_by(operand)
    if eqn.name == "reduce_sum":
        shift = difference.sum(axes)
        bad = (operand.varies & gone).any(axes)
        emits = operand.varies | (operand.before != 0)
    else:
        bad = (gone | (difference != 0)).any(axes)
        shift, emits = np.zeros(bad.shape), np.broadcast_to(True, gone.shape)
    causes: set[int] = set()
    for i in axes:
        others = tuple(k for k in range(gone.ndim) if k != i)
        indices = np.flatnonzero(reduced[0, i] & emits.any(others))
        axis = state.removed.labeled.axes[number][i]
        causes |= state.removed.owners(axis, indices)
    return Change([shift], [bad], frozenset(causes))


def _windows(eqn: Equation, reduced: Reduced, state: Any) -> Change:
    """Sums shifts over windows; of a maximum, those of constants."""
    del reduced
    (number,) = eqn.inputs
    shift = shift_of(number, state)
    varies = state.entries.varies[eqn.outputs[0]]
    if eqn.name == "reduce_window_sum":
        total = arithmetic.windows(eqn, shift)
        return Change([total], [np.broadcast_to(False, total.shape)], frozenset())
    moved = arithmetic.windows(eqn, shift != 0) > 0.5
    return Change([_recomputed(eqn, state)], [moved & varies], frozenset())


RULES: dict[str, Callable[..., Change]] = (
    dict.fromkeys((*ENTRYWISE, "mul", "select_n"), _entrywise)
    | dict.fromkeys(REDUCES, _reduction)
    | dict.fromkeys(WINDOWS, _windows)
    | {"conv_general_dilated": _convolution, "dot_general": _dot}
)
