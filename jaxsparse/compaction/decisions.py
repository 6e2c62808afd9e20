"""Which units can be removed without changing the outputs.

A unit is dead if none of its entries both varies and matters: nothing reads it, or no
input reaches it. What a constant unit emits is added to biases where that is exact.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxsparse.compaction import constant_entries, removed_units, shifts
from jaxsparse.compaction.constant_entries import Entries, Pattern
from jaxsparse.compaction.removed_units import Labeled
from jaxsparse.coupling import axis_rules
from jaxsparse.coupling.program import Program

Array = np.ndarray

# How often units that have to stay together are tried in smaller parts.
MOST_TRIALS = 24
# Reasons.
LAST = "a layer keeps one unit"
ROUNDED = "`round_to` keeps a multiple of"


class Network(NamedTuple):
    """A forward function and what its values depend on.

    Attributes:
      labeled: the program and its units.
      entries: values that are the same for all inputs.
      need: the entries that an output depends on, by number.
    """

    labeled: Labeled
    entries: Entries
    need: list[Pattern]


class Decision(NamedTuple):
    """Units to remove.

    Attributes:
      units: the units.
      corrections: what is added to leaves, by name.
      stay: dead units that are kept, each with the reason.
    """

    units: set[int]
    corrections: dict[str, Array]
    stay: dict[int, str]


def analyze(program: Program, leaves: dict[str, Any]) -> Network:
    """Finds units, constants and what matters.

    Args:
      program: the forward function.
      leaves: values of the parameters, with zeros for the pruned weights.
    """
    labeled = Labeled(program, *axis_rules.label(program))
    entries = constant_entries.forward(program, leaves)
    return Network(labeled, entries, constant_entries.needed(program, entries))


def live_indices(network: Network) -> Iterator[tuple[Array, Pattern]]:
    """Finds which indices have an entry that varies and matters.

    Args:
      network: the network.

    Yields:
      For each axis of each value, once for each of its factors, the units of its
      indices, and which of the indices do.
    """
    labeled = network.labeled
    for number, axes in enumerate(labeled.axes):
        varies = network.entries.varies[number]
        if varies is None or not axes or not varies.any():
            continue
        live = varies & network.need[number]
        for i, axis in enumerate(axes):
            along = live.any(tuple(k for k in range(live.ndim) if k != i))
            sizes = [len(factor) for factor in axis]
            for k, factor in enumerate(axis):
                units = labeled.labels.sets(factor)
                units = units.reshape([-1 if j == k else 1 for j in range(len(sizes))])
                yield np.broadcast_to(units, sizes).reshape(-1), along


def dead_units(network: Network) -> set[int]:
    """Finds the units without any entry that varies and matters.

    Args:
      network: the network.
    """
    alive: set[int] = set()
    for units, live in live_indices(network):
        alive |= set(units[live].tolist())
    return network.labeled.units() - alive


def decide(
    network: Network, allowed: set[int] | None = None, *, round_to: int = 1
) -> Decision:
    """Chooses the units to remove.

    Args:
      network: the network.
      allowed: units that may be removed; None for all.
      round_to: the number of indices of an axis that stay is rounded up to a multiple
        of this, or to the length of the axis if it is less.

    Returns:
      As many units as can be removed exactly.
    """
    units = dead_units(network)
    units = units if allowed is None else units & allowed
    labeled = network.labeled
    wanted, held = _keep_some(labeled, units, round_to)
    chosen = _exact(network, wanted)
    stay = dict(chosen.stay)
    # Some of the units that had to stay may go without the others.
    trials, parts = MOST_TRIALS, _halves(sorted(stay))
    while parts and trials and len(stay) > 1:
        part, trials = parts.pop(0), trials - 1
        wanted, others = _keep_some(labeled, chosen.units | set(part), round_to)
        more = _exact(network, wanted)
        if len(more.units) > len(chosen.units) and not more.stay:
            chosen, held = more, held | others
        elif len(part) > 1:
            parts += _halves(part)
    # Units that stay make an axis longer. So rounding comes last, and what seemed to be
    # the last unit of its layer may go after all.
    stay = {unit: why for unit, why in stay.items() if unit not in chosen.units}
    for candidates in (units - stay.keys(), chosen.units):
        wanted, others = _keep_some(labeled, candidates, round_to)
        more = chosen if wanted == chosen.units else _exact(network, wanted)
        held, stay = held | others, stay | more.stay
        if more is chosen or not more.stay:
            break
    reasons = held | stay
    stay = {unit: reasons[unit] for unit in sorted(units - more.units)}
    return Decision(more.units, more.corrections, stay)


def _halves(units: list[int]) -> list[list[int]]:
    middle = len(units) // 2
    return [part for part in (units[:middle], units[middle:]) if part]


def _exact(network: Network, units: set[int]) -> Decision:
    """Leaves out units until the removal of the others is exact."""
    stay: dict[int, str] = {}
    while units:
        removed = removed_units.choose(network.labeled, units)
        state = shifts.follow(removed, network.entries, network.need)
        if not state.stay:
            causes = frozenset().union(*state.causes.values(), units)
            corrections = state.corrections
            state = shifts.follow(
                removed, network.entries, network.need, corrections, causes
            )
        if not state.stay:
            return Decision(units, corrections, stay)
        stay |= state.stay
        units = units - set(state.stay)
    return Decision(units, {}, stay)


def _keep_some(
    labeled: Labeled, units: set[int], round_to: int
) -> tuple[set[int], dict[int, str]]:
    """Keeps units where an axis would get length 0, or no multiple of a number.

    Returns:
      The units that may still go, and the reason for each of the others.
    """
    units, labels = set(units), labeled.labels
    held: dict[int, str] = {}
    leaves = [
        labels.sets(axis[0])
        for number in labeled.program.leaves.values()
        for axis in labeled.axes[number]
    ]
    changed = True
    while changed:
        changed = False
        for sets in leaves:
            gone = [unit for unit in dict.fromkeys(sets.tolist()) if unit in units]
            kept = len(sets) - int(np.isin(sets, gone).sum())
            least = min(len(sets), max(-(-kept // round_to) * round_to, 1))
            for unit in gone:
                if kept >= least and not (kept % round_to and kept < len(sets)):
                    break
                units.remove(unit)
                held[unit] = f"{ROUNDED} {round_to} units" if kept else LAST
                kept += int((sets == unit).sum())
                changed = True
    return units, held
