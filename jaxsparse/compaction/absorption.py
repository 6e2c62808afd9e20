"""Leaves that take up shifts: biases, and running means that are subtracted."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsparse.compaction import moves
from jaxsparse.coupling.program import Equation, Program

Array = np.ndarray

SIGNS = {"add": (1, 1), "add_any": (1, 1), "sub": (1, -1)}
TINY = 1e-5  # relative difference of shifts that are equal up to rounding


class Origins(NamedTuple):
    """Which values are leaves, moved but not changed.

    Attributes:
      program: the program.
      producers: the equation that makes each value, by number.
      names: names of the leaves, by number.
      known: answers given before.
    """

    program: Program
    producers: dict[int, Equation]
    names: dict[int, str]
    known: dict[int, tuple[str, Array] | None]

    def of(self, number: int) -> tuple[str, Array] | None:
        """Returns the leaf that a value is made of.

        Args:
          number: number of the value.

        Returns:
          Name of the leaf, and for each entry its position in the flattened leaf; None
          if the value is anything else.
        """
        if number not in self.known:
            self.known[number] = self._find(number)
        return self.known[number]

    def _find(self, number: int) -> tuple[str, Array] | None:
        if number in self.names:
            shape = self.program.avals[number].shape
            return self.names[number], np.arange(int(np.prod(shape))).reshape(shape)
        eqn = self.producers.get(number)
        if eqn is None or eqn.name not in moves.MOVES or len(eqn.inputs) != 1:
            return None
        before = self.of(eqn.inputs[0])
        found = moves.sources(eqn, self.program, {})
        if before is None or found is None:
            return None
        name, places = before
        return name, places.reshape(-1)[found[eqn.outputs.index(number)]]


def origins(program: Program) -> Origins:
    """Prepares to find which values are leaves.

    Args:
      program: the program.
    """
    producers = {n: eqn for eqn in program.equations for n in eqn.outputs}
    names = {number: name for name, number in program.leaves.items()}
    return Origins(program, producers, names, {})


def absorb(
    eqn: Equation, shift: Array, relevant: Array, found: Origins, state: Any
) -> Array:
    """Has a leaf that is added or subtracted take up a shift.

    A leaf's entry takes up the shift if all entries that it is added to, as far as they
    matter, have the same shift. Of a leaf that is read several times, the first reader
    with a shift decides; where a later one needs another, a shift remains.

    Args:
      eqn: the equation whose result is shifted.
      shift: the shift.
      relevant: entries of the result that matter and remain.
      found: which values are leaves.
      state: the pass; its corrections are added to.

    Returns:
      What remains of the shift.
    """
    for number, sign in zip(eqn.inputs, SIGNS.get(eqn.name, ()), strict=False):
        origin = found.of(number)
        if origin is None or number in state.shifts:
            continue
        name, places = origin
        aval = found.program.avals[found.program.leaves[name]]
        if not jnp.issubdtype(aval.dtype, jnp.floating):
            continue
        size = int(np.prod(aval.shape))
        places = np.broadcast_to(places, shift.shape)[relevant]
        wanted = -sign * shift[relevant].astype(np.float64)
        highest = np.full(size, -np.inf)
        np.maximum.at(highest, places, wanted)
        lowest = np.full(size, np.inf)
        np.minimum.at(lowest, places, wanted)
        largest = np.maximum(np.abs(highest), np.abs(lowest))
        with np.errstate(invalid="ignore"):
            equal = np.isfinite(largest) & (highest - lowest <= TINY * largest)
        value = np.where(equal, (np.where(equal, highest, 0) + lowest) / 2, 0)
        # A leaf that is read several times has taken up what an earlier reader needed.
        given = state.corrections.get(name, np.zeros(aval.shape)).reshape(-1)
        equal &= (given == 0) | (np.abs(value - given) <= TINY * np.abs(given))
        value = np.where(equal & (given == 0), value, 0)
        if not given.any() and not value.any():
            continue
        state.corrections[name] = (given + value).reshape(aval.shape)
        left = shift.copy()
        changed = shift[relevant] + sign * given[places]
        left[relevant] = np.where(equal[places], 0, changed)
        shift = left
    return shift
