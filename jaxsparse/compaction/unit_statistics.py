"""Units that stay only because numbers are computed from all units of their layer.

LayerNorm subtracts the mean over the units, GroupNorm that over the units of a group,
and softmax divides by a sum. Through such a number an input reaches units without
weights of their own, and an output depends on units that no weight reads. They could go
if the numbers were constants.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from jaxsparse.compaction import constant_entries, decisions
from jaxsparse.compaction.decisions import Network
from jaxsparse.compaction.removed_units import Labeled
from jaxsparse.coupling.axis_labels import SPLIT, Axis, Labels
from jaxsparse.coupling.axis_rules import REDUCES

# A unit, and which of its indices: all count as 0, except in groups of units that can
# only go together.
Member = tuple[int, int]


def kept(network: Network) -> dict[tuple[str, int, int], str]:
    """Lists the indices that stay because of a number computed from all units.

    Args:
      network: the network.

    Returns:
      The reason by leaf, axis and index.
    """
    labeled, program = network.labeled, network.labeled.program
    readers = _readers(network)
    if not readers:
        return {}
    names = {n: name for found in readers.values() for n, name in found.items()}
    leaves = {name: network.entries.values[n] for name, n in program.leaves.items()}
    entries = constant_entries.forward(program, leaves, frozenset(names))
    need = constant_entries.needed(program, entries, frozenset(names))
    sizes, units = _group_sizes(labeled), labeled.units()
    only = _live(network, sizes) - _live(Network(labeled, entries, need), sizes)
    found: dict[tuple[str, int, int], str] = {}
    for leaf, number in program.leaves.items():
        for i, axis in enumerate(labeled.axes[number]):
            sets = labeled.labels.sets(axis[0])
            members = zip(sets.tolist(), _members(sets, sizes).tolist(), strict=True)
            for index, (unit, member) in enumerate(members):
                if (unit, member) in only and unit in units:
                    # A unit of another layer may be read by such units only.
                    found[leaf, i, index] = _reason(readers.get(unit, names))
    return found


def _reason(names: dict[int, str]) -> str:
    operations = " and ".join(map(repr, sorted(set(names.values()))))
    return f"{operations} over units, as in a normalization or softmax"


def _readers(network: Network) -> dict[int, dict[int, str]]:
    """Lists the numbers computed from all units, with operations, for each unit."""
    found: dict[int, dict[int, str]] = {}
    labeled, varies = network.labeled, network.entries.varies
    for place, eqn in enumerate(labeled.program.equations):
        if eqn.name not in REDUCES or not varies[eqn.inputs[0]].any():
            continue
        axes = labeled.axes[eqn.inputs[0]]
        over = _units([axes[i] for i in eqn.params["axes"]], labeled.labels)
        if over and _is_read_by(over, place, labeled):
            for unit in _sets(axes, labeled.labels):
                found.setdefault(unit, {})[eqn.outputs[0]] = eqn.name
    return found


def _is_read_by(units: set[int], place: int, labeled: Labeled) -> bool:
    """Says whether values of units depend on a number computed from these units.

    Otherwise it is read by the next layer, as any sum.
    """
    depends = set(labeled.program.equations[place].outputs)
    for eqn in labeled.program.equations[place + 1 :]:
        if depends.isdisjoint(eqn.inputs):
            continue
        if any(units & _sets(labeled.axes[n], labeled.labels) for n in eqn.outputs):
            return True
        depends.update(eqn.outputs)
    return False


def _sets(axes: Sequence[Axis], labels: Labels) -> set[int]:
    return {int(s) for axis in axes for f in axis for s in np.unique(labels.sets(f))}


def _units(axes: Sequence[Axis], labels: Labels) -> set[int]:
    """Finds the units along axes, or the members of groups of units."""
    return {
        unit
        for unit in _sets(axes, labels)
        if labels.reason(unit) in ("", SPLIT)  # others are fixed
    }


def _group_sizes(labeled: Labeled) -> dict[int, int]:
    """Counts the units of each group of units that can only go together.

    Such a group has the same number of indices along all axes of leaves.
    """
    counts: dict[int, set[int]] = {}
    for number in labeled.program.leaves.values():
        for axis in labeled.axes[number]:
            sets = labeled.labels.sets(axis[0])
            units, lengths = np.unique(sets, return_counts=True)
            for unit, length in zip(units.tolist(), lengths.tolist(), strict=True):
                counts.setdefault(unit, set()).add(length)
    return {
        unit: min(lengths)
        for unit, lengths in counts.items()
        if len(lengths) == 1 and min(lengths) > 1
    }


def _members(sets: Int[np.ndarray, " n"], sizes: dict[int, int]) -> np.ndarray:
    """Numbers the indices of each group; -1 where an axis has not all of them."""
    numbers = np.zeros(len(sets), int)
    for unit in sizes.keys() & set(sets.tolist()):
        places = np.flatnonzero(sets == unit)
        whole = len(places) == sizes[unit]
        numbers[places] = np.arange(len(places)) if whole else -1
    return numbers


def _live(network: Network, sizes: dict[int, int]) -> set[Member]:
    """Finds the members with an entry that varies and matters."""
    found: set[Member] = set()
    for sets, live in decisions.live_indices(network):
        members = _members(sets, sizes)
        found |= set(zip(sets[live].tolist(), members[live].tolist(), strict=True))
    return found
