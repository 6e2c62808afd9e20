"""What the removal of units changes in the values that remain.

A removed unit that is constant was a constant in the sums that it entered. Without it
these sums are shifted. A shift passes through linear operations, and vanishes where a
bias or a running mean takes it up. Where it reaches a varying entry of any other
operation, or would differ between entries that share a bias, the units that caused it
have to stay.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsparse.compaction import absorption, moves, shift_rules
from jaxsparse.compaction.constant_entries import Entries, Pattern
from jaxsparse.compaction.removed_units import Removed
from jaxsparse.coupling.program import Equation

Array = np.ndarray

LEFT = "a constant that no bias takes up before"  # begins a reason


class State(NamedTuple):
    """One pass over a program.

    Attributes:
      removed: the units that are removed.
      entries: values and patterns of the whole network.
      need: the entries that matter, by number.
      shifts: the shift of each value that has one, by number; 0 where it is removed or
        does not matter.
      causes: for each value with a shift the removed units that caused it.
      corrections: what was added to leaves, by name.
      stay: units that cannot be removed, each with the operation that prevents it.
    """

    removed: Removed
    entries: Entries
    need: list[Pattern]
    shifts: dict[int, Array]
    causes: dict[int, frozenset[int]]
    corrections: dict[str, Array]
    stay: dict[int, str]


def follow(
    removed: Removed,
    entries: Entries,
    need: list[Pattern],
    corrections: dict[str, Array] | None = None,
    causes: frozenset[int] = frozenset(),
) -> State:
    """Follows the shifts through the program.

    Args:
      removed: the units that are removed.
      entries: values and patterns of the whole network.
      need: the entries that matter, by number.
      corrections: what has been added to leaves, by name; None to find what has to be
        added.
      causes: units that caused the corrections.

    Returns:
      The final state. The removal is exact if no unit has to stay.
    """
    program = removed.labeled.program
    state = State(removed, entries, need, {}, {}, {}, {})
    for name, value in (corrections or {}).items():
        number = program.leaves[name]
        state.shifts[number] = np.where(removed.entries(number), 0, value)
        state.causes[number] = causes
    origins = absorption.origins(program)
    for eqn in program.equations:
        change = _change(eqn, state)
        if change is None:
            continue
        for i, number in enumerate(eqn.outputs):
            relevant = np.asarray(need[number] & ~removed.entries(number))
            shift = _passed(eqn, change, i, relevant, state)
            if corrections is None and shift.any():
                shift = absorption.absorb(eqn, shift, relevant, origins, state)
            if shift.any():
                state.shifts[number] = shift
                state.causes[number] = change.causes
    for number in program.outputs:
        for unit in state.causes.get(number, ()):
            state.stay.setdefault(unit, f"{LEFT} an output")
    return state


def _passed(
    eqn: Equation, change: shift_rules.Change, i: int, relevant: Pattern, state: State
) -> Array:
    """Returns the shift of a result; has the causes stay if it is not a constant."""
    finite = np.isfinite(change.shifts[i])
    bad = np.asarray((change.bad[i] | ~finite) & relevant)
    if bad.any():
        # Without a known cause, nothing may be removed.
        for unit in change.causes or state.removed.units.tolist():
            state.stay.setdefault(unit, f"{LEFT} {eqn.name!r}")
    return np.where(relevant & ~bad, change.shifts[i], 0)


def _change(eqn: Equation, state: State) -> shift_rules.Change | None:
    """Returns how the results of an equation change; None if they do not."""
    reduced = shift_rules.reduced_indices(eqn, state.removed)
    shifted = [n for n in eqn.inputs if n in state.shifts]
    if not shifted and not any(gone.any() for gone in reduced.values()):
        return None
    causes: frozenset[int] = frozenset()
    for number in shifted:
        causes |= state.causes[number]
    found = moves.sources(
        eqn, state.removed.labeled.program, state.entries.constants(eqn)
    )
    if found is not None and _is_float(eqn, state):
        return _moved(eqn, found, causes, state)
    rule = shift_rules.RULES.get(eqn.name, shift_rules.anything)
    change = rule(eqn, reduced, state)
    return change._replace(causes=causes | change.causes)


def _is_float(eqn: Equation, state: State) -> bool:
    program = state.removed.labeled.program
    return all(
        jnp.issubdtype(program.avals[n].dtype, jnp.floating) for n in eqn.outputs
    )


def _moved(
    eqn: Equation, found: list[Array], causes: Any, state: State
) -> shift_rules.Change:
    """Moves shifts as the values."""
    flat = np.concatenate(
        [np.ravel(shift_rules.shift_of(n, state)) for n in eqn.inputs]
    )
    shifts = [np.asarray(flat[places]) for places in found]
    bad = [np.broadcast_to(False, shift.shape) for shift in shifts]
    return shift_rules.Change(shifts, bad, causes)
