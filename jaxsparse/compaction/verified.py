"""Decisions whose smaller network was traced, run and compared."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxsparse.compaction import (
    checks,
    cutting,
    decisions,
    removed_units,
    unit_statistics,
)
from jaxsparse.compaction.decisions import Decision, Network
from jaxsparse.compaction.removed_units import Labeled
from jaxsparse.coupling.groups import LeafAxis
from jaxsparse.coupling.program import Program

Apply = Callable[..., Any]


class Smaller(NamedTuple):
    """A smaller network that passed all checks.

    Attributes:
      params: its parameters.
      apply: called as `apply(params, *inputs)`.
      program: its program.
      difference: largest absolute difference of an output.
    """

    params: Any
    apply: Apply
    program: Program
    difference: float


class Trial:
    """Tries decisions on a network.

    Attributes:
      network: the network.
      whole: the network with all its units.
      smaller: the last smaller one that passed all checks; at first the whole one.
    """

    def __init__(
        self,
        network: Network,
        apply: Apply,
        params: Any,
        inputs: tuple[Any, ...],
        rebuild: Callable[[Any], Apply],
    ) -> None:
        """Stores the network.

        Args:
          network: what is known of it.
          apply: called as `apply(params, *inputs)`.
          params: its parameters, with zeros outside the masks.
          inputs: example of each input.
          rebuild: makes the function that runs smaller parameters.
        """
        self.network = network
        self._apply, self._params, self._inputs = apply, params, inputs
        self._rebuild = rebuild
        self.whole = Smaller(params, apply, network.labeled.program, 0.0)
        self.smaller = self.whole

    def failure(self, decision: Decision, *, outputs: bool) -> str:
        """Returns why the smaller network is not the same; empty if it is.

        Args:
          decision: what to remove.
          outputs: whether to compare outputs too, and not only the programs.
        """
        removed = removed_units.choose(self.network.labeled, decision.units)
        cuts = cutting.cuts_of(removed)
        small = cutting.cut(self._params, cuts, decision.corrections)
        program = self.network.labeled.program
        try:
            apply = self._rebuild(small)
        except Exception as error:  # whatever the user's module raises
            return str(error)
        reason, after = checks.failure(apply, small, program, self._inputs)
        if reason or not outputs:
            return reason
        try:
            gap, relative = checks.difference(
                (self._apply, self._params), (apply, small), self._inputs
            )
        except Exception as error:  # whatever the user's function raises
            return f"the smaller network does not run ({checks.first_line(error)})"
        if relative > checks.tolerance(program):
            return f"outputs would change by {gap:.1e}"
        self.smaller = Smaller(small, apply, after, gap)
        return ""


def decide(trial: Trial, *, round_to: int) -> tuple[Decision, dict[LeafAxis, str]]:
    """Chooses the units to remove, and leaves out groups that fail a check.

    Args:
      trial: the network.
      round_to: the number of units of a layer that stay is rounded up to a multiple of
        this.

    Returns:
      The decision, and the reason for each leaf and axis of groups left out.
    """
    network = trial.network
    decision = decisions.decide(network, round_to=round_to)
    if not decision.units or not trial.failure(decision, outputs=True):
        return decision, {}
    groups = _groups(network.labeled, decisions.dead_units(network))
    refused: dict[LeafAxis, str] = {}
    for outputs in (False, True):
        good = []
        for group in groups:
            alone = decisions.decide(network, group, round_to=round_to)
            reason = trial.failure(alone, outputs=outputs) if alone.units else ""
            if reason:
                refused |= dict.fromkeys(_axes(network.labeled, group), reason)
            else:
                good.append(group)
        groups = good
        allowed = set().union(*groups)
        decision = decisions.decide(network, allowed, round_to=round_to)
        if not decision.units:
            return decision, refused
        reason = trial.failure(decision, outputs=True)
        if not reason:
            return decision, refused
    refused |= dict.fromkeys(_axes(network.labeled, allowed), reason)
    return Decision(set(), {}, decision.stay), refused


def _groups(labeled: Labeled, units: set[int]) -> list[set[int]]:
    """Divides units into those that share axes of leaves."""
    groups: list[set[int]] = []
    for number in labeled.program.leaves.values():
        for axis in labeled.axes[number]:
            here = set(labeled.labels.sets(axis[0]).tolist()) & units
            if here:
                joined = [group for group in groups if group & here]
                groups = [group for group in groups if not group & here]
                groups.append(here.union(*joined))
    return groups


def _axes(labeled: Labeled, units: set[int]) -> list[LeafAxis]:
    """Lists the leaves and axes with indices of some units."""
    return [
        (name, i)
        for name, number in labeled.program.leaves.items()
        for i, axis in enumerate(labeled.axes[number])
        if units & set(labeled.labels.sets(axis[0]).tolist())
    ]


def kept(network: Network, decision: Decision) -> dict[tuple[str, int, int], str]:
    """Lists the indices of units that stay although their weights are pruned.

    Args:
      network: the network.
      decision: the units that go, and the dead ones that stay.

    Returns:
      The reason by leaf, axis and index.
    """
    labeled, found = network.labeled, unit_statistics.kept(network)
    stay = decision.stay
    for name, number in labeled.program.leaves.items():
        for i, axis in enumerate(labeled.axes[number]):
            sets = labeled.labels.sets(axis[0])
            for index in np.flatnonzero(np.isin(sets, list(stay))).tolist():
                found[name, i, index] = stay[int(sets[index])]
    return found
