"""Which entries of a network's values are the same for all inputs, and which matter.

The forward pass follows parameters and constants through the program. An entry varies
if an input reaches it through factors that are not zero; otherwise its value is
computed. The backward pass finds the entries that some output depends on.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxsparse import rng
from jaxsparse.compaction import arithmetic, moves
from jaxsparse.connectivity import jaxpr_rules
from jaxsparse.coupling.axis_rules import CUMULATIVE, REDUCES, WINDOWS
from jaxsparse.coupling.program import Equation, Program

ENTRYWISE = jaxpr_rules.ENTRYWISE | {"mul", "select_n"}
Array = np.ndarray
Pattern = Bool[np.ndarray, "..."]


class Entries(NamedTuple):
    """Values of a program, by number.

    Attributes:
      values: arrays of the dtypes of the program, but with floats of 32 bits or more;
        0 where an entry varies.
      varies: boolean arrays, True where an entry depends on an input.
    """

    values: list[Any]
    varies: list[Any]

    def nonzero(self, number: int) -> Pattern:
        """Returns where a value may differ from zero.

        Args:
          number: number of the value.
        """
        return np.asarray(self.varies[number] | (self.values[number] != 0))

    def constants(self, eqn: Equation) -> dict[int, Any]:
        """Returns the operands of an equation without any varying entry, but no keys.

        Args:
          eqn: the equation.
        """
        known = {n: self.values[n] for n in eqn.inputs if not self.varies[n].any()}
        return {n: value for n, value in known.items() if isinstance(value, Array)}


def forward(
    program: Program, leaves: dict[str, Any], without: frozenset[int] = frozenset()
) -> Entries:
    """Computes all entries that do not depend on an input.

    Args:
      program: the program.
      leaves: values of the parameters by name, with zeros for the pruned weights.
      without: values that are taken to be 1 where they vary, by number.
    """
    count = len(program.avals)
    entries = Entries([None] * count, [None] * count)

    def know(number: int, value: Any) -> None:
        if value is None:
            _vary(entries, number, program)
            return
        aval = program.avals[number]
        entries.values[number] = (
            value if rng.is_key(aval) else arithmetic.to_numpy(value)
        )
        entries.varies[number] = np.broadcast_to(False, aval.shape)

    for number, value in program.constants.items():
        know(number, value)
    for name, number in program.leaves.items():
        know(number, leaves[name])
    for number in program.inputs:
        _vary(entries, number, program)
    for eqn in program.equations:
        if any(entries.varies[n].any() for n in eqn.inputs):
            if without.isdisjoint(eqn.outputs):
                _step(eqn, program, entries)
                continue
            avals = [program.avals[n] for n in eqn.outputs]
            results = [np.ones(a.shape, arithmetic.wide(a.dtype)) for a in avals]
        else:
            results = _computed(eqn, program, entries)
        for number, value in zip(eqn.outputs, results, strict=True):
            know(number, value)
    return entries


def _computed(eqn: Equation, program: Program, entries: Entries) -> list[Any]:
    """Computes the results of constants; None where this is not possible."""
    operands = [entries.values[n] for n in eqn.inputs]
    try:
        return arithmetic.evaluate(eqn, program, operands)
    except Exception:  # what runs only inside a larger program, such as psum
        return [None] * len(eqn.outputs)


def _vary(entries: Entries, number: int, program: Program) -> None:
    """Has all entries of a value vary, without using memory for them."""
    aval = program.avals[number]
    dtype = np.float32 if rng.is_key(aval) else arithmetic.wide(aval.dtype)
    entries.values[number] = np.broadcast_to(np.zeros((), dtype), aval.shape)
    entries.varies[number] = np.broadcast_to(True, aval.shape)


def _put(
    entries: Entries,
    number: int,
    program: Program,
    value: Array | None,
    varies: Pattern,
) -> None:
    if value is None or varies.all():
        _vary(entries, number, program)
        return
    value = np.broadcast_to(value, varies.shape)
    entries.values[number] = np.where(varies, np.zeros((), value.dtype), value)
    entries.varies[number] = varies


def _step(eqn: Equation, program: Program, entries: Entries) -> None:
    """Follows an equation of which an operand varies."""
    found = moves.sources(eqn, program, entries.constants(eqn))
    if found is not None:
        _move(eqn, found, program, entries)
        return
    if eqn.name in ENTRYWISE:
        varies = _entrywise(eqn, program, entries)
    elif eqn.name in ("dot_general", "conv_general_dilated"):
        varies = _product(eqn, entries)
    elif eqn.name in REDUCES:
        varies = np.any(entries.varies[eqn.inputs[0]], tuple(eqn.params["axes"]))
    elif eqn.name in WINDOWS:
        varies = arithmetic.windows(eqn, entries.varies[eqn.inputs[0]]) > 0.5
    elif eqn.name == "gather":
        _look_up(eqn, program, entries)
        return
    else:
        for number in eqn.outputs:
            _vary(entries, number, program)
        return
    varies = np.asarray(varies)
    value = None
    if not varies.all():
        operands = [entries.values[n] for n in eqn.inputs]
        (value,) = arithmetic.evaluate(eqn, program, operands)
    _put(entries, eqn.outputs[0], program, value, varies)


def _move(
    eqn: Equation, found: list[Array], program: Program, entries: Entries
) -> None:
    """Follows an equation that only moves entries, and may change their dtype."""
    avals = [program.avals[n] for n in eqn.outputs]
    if any(map(rng.is_key, avals)):
        for number in eqn.outputs:
            _vary(entries, number, program)
        return
    data = eqn.inputs[: moves.INDEXED.get(eqn.name)]
    values, varies = (
        np.concatenate([np.ravel(x[n]) for n in data])
        for x in (entries.values, entries.varies)
    )
    for number, aval, places in zip(eqn.outputs, avals, found, strict=True):
        value = np.asarray(values[places], arithmetic.wide(aval.dtype))
        _put(entries, number, program, value, np.asarray(varies[places]))


def _entrywise(eqn: Equation, program: Program, entries: Entries) -> Pattern:
    """Finds the results of single entries that vary."""
    shape = program.avals[eqn.outputs[0]].shape
    if eqn.name == "mul":
        a, b = eqn.inputs
        varies = entries.varies[a] & entries.nonzero(b)
        return np.broadcast_to(varies | (entries.varies[b] & entries.nonzero(a)), shape)
    if eqn.name == "select_n" and not entries.varies[eqn.inputs[0]].any():
        which, *cases = eqn.inputs
        patterns = [np.broadcast_to(entries.varies[n], shape) for n in cases]
        chosen = np.broadcast_to(entries.values[which], shape).astype(int)
        return np.choose(chosen, patterns)
    varies = np.broadcast_to(False, shape)
    for number in eqn.inputs:
        varies = varies | entries.varies[number]
    return np.asarray(varies)


def _product(eqn: Equation, entries: Entries) -> Pattern:
    """Finds the sums of products that vary."""
    a, b = eqn.inputs
    op = arithmetic.dot if eqn.name == "dot_general" else arithmetic.convolve
    total: Any = 0.0
    if entries.varies[a].any():
        total = op(eqn, *map(_floats, (entries.varies[a], entries.nonzero(b))))
    if entries.varies[b].any():
        total = total + op(eqn, *map(_floats, (entries.nonzero(a), entries.varies[b])))
    return total > 0.5


def _floats(pattern: Pattern) -> Array:
    return pattern.astype(np.float32)


def _look_up(eqn: Equation, program: Program, entries: Entries) -> None:
    """Follows rows looked up by an input: what is equal in all rows is constant."""
    (number,), (data, _) = eqn.outputs, eqn.inputs
    rows = _rows(eqn, program)
    if rows is None or entries.varies[data].any():
        _vary(entries, number, program)
        return
    value, shape = entries.values[data], program.avals[number].shape
    first = value.take([0], rows[0])
    for axis in rows[1:]:
        first = first.take([0], axis)
    varies = (value != first).any(rows)
    spread = [1] * len(shape)
    for i, to in enumerate(eqn.params["dimension_numbers"].offset_dims):
        spread[to] = varies.shape[i]
    _put(
        entries,
        number,
        program,
        np.broadcast_to(first.reshape(spread), shape),
        np.broadcast_to(varies.reshape(spread), shape),
    )


def _rows(eqn: Equation, program: Program) -> tuple[int, ...] | None:
    """Returns the axes that are looked up; None if others are not taken whole."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    shape = program.avals[eqn.inputs[0]].shape
    rows = tuple(numbers.collapsed_slice_dims)
    whole = all(
        size == n
        for i, (size, n) in enumerate(zip(sizes, shape, strict=True))
        if i not in rows
    )
    batching = getattr(numbers, "operand_batching_dims", ())
    is_plain = not batching and set(numbers.start_index_map) <= set(rows)
    return rows if rows and whole and is_plain and 0 not in shape else None


def needed(
    program: Program, entries: Entries, without: frozenset[int] = frozenset()
) -> list[Pattern]:
    """Finds the entries that an output depends on.

    Args:
      program: the program.
      entries: what `forward` returned.
      without: values whose operands are not needed for them, by number.

    Returns:
      For each value a boolean array.
    """
    need = [np.broadcast_to(False, aval.shape) for aval in program.avals]
    for number in program.outputs:
        need[number] = np.broadcast_to(True, need[number].shape)
    for eqn in reversed(program.equations):
        if not any(need[n].any() for n in eqn.outputs if n not in without):
            continue
        found = moves.sources(eqn, program, entries.constants(eqn))
        if found is not None:
            _move_back(eqn, found, need, program)
            continue
        for i, number in enumerate(eqn.inputs):
            pattern = _back(eqn, i, need, entries, program)
            need[number] = np.asarray(need[number] | pattern)
    return need


def _move_back(
    eqn: Equation, found: list[Array], need: list[Pattern], program: Program
) -> None:
    sizes = [int(np.prod(program.avals[n].shape)) for n in eqn.inputs]
    flat = np.zeros(sum(sizes), bool)
    for number, places in zip(eqn.outputs, found, strict=True):
        flat[places[need[number]]] = True
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    for number, part in zip(eqn.inputs, parts, strict=True):
        joined = need[number] | part.reshape(need[number].shape)
        need[number] = np.asarray(joined)


def _back(
    eqn: Equation, i: int, need: list[Pattern], entries: Entries, program: Program
) -> Pattern:
    """Returns the entries of one operand that an output depends on."""
    shape = program.avals[eqn.inputs[i]].shape
    out = need[eqn.outputs[0]]
    if eqn.name == "mul":
        other = entries.nonzero(eqn.inputs[1 - i])
        return arithmetic.unbroadcast(out & other, shape)
    if eqn.name == "select_n" and i and not entries.varies[eqn.inputs[0]].any():
        chosen = entries.values[eqn.inputs[0]].astype(int) == i - 1
        return arithmetic.unbroadcast(out & chosen, shape)
    if eqn.name in ENTRYWISE:
        return arithmetic.unbroadcast(out, shape)
    if not entries.varies[eqn.inputs[i]].any():  # of weights, all are taken to matter
        return np.broadcast_to(True, shape)
    if eqn.name == "dot_general":
        return _dot_back(eqn, i, out, entries)
    if eqn.name == "conv_general_dilated":
        other = entries.nonzero(eqn.inputs[1 - i])
        return arithmetic.convolve_back(eqn, out, other, i, shape) > 0.5
    return _reduced_back(eqn, i, out, program)


def _reduced_back(eqn: Equation, i: int, out: Pattern, program: Program) -> Pattern:
    """Returns the needed entries of the operand of a reduction or a look-up."""
    shape = program.avals[eqn.inputs[i]].shape
    if eqn.name in REDUCES:
        axes = tuple(eqn.params["axes"])
        return np.broadcast_to(np.expand_dims(out, axes), shape)
    if eqn.name in WINDOWS:
        return arithmetic.windows_back(eqn, out, shape) > 0.5
    if eqn.name in CUMULATIVE:
        return np.broadcast_to(out.any(eqn.params["axis"], keepdims=True), shape)
    if eqn.name == "gather" and i == 0 and (rows := _rows(eqn, program)):
        offsets = eqn.params["dimension_numbers"].offset_dims
        places = tuple(k for k in range(out.ndim) if k not in offsets)
        return np.broadcast_to(np.expand_dims(out.any(places), rows), shape)
    return np.broadcast_to(True, shape)


def _dot_back(eqn: Equation, i: int, out: Pattern, entries: Entries) -> Pattern:
    """Returns the needed entries of one operand of a matrix product."""
    patterns = [_floats(entries.nonzero(n)) for n in eqn.inputs]
    pair = arithmetic.matrices(eqn, *patterns)
    rows, columns = pair.left.shape[1], pair.right.shape[2]
    weights = _floats(out).reshape(-1, rows, columns)
    if i == 0:
        stack = np.matmul(weights, pair.right.swapaxes(1, 2))
    else:
        stack = np.matmul(pair.left.swapaxes(1, 2), weights)
    return arithmetic.unmatrix(eqn, stack > 0.5, patterns[i].shape, i)
