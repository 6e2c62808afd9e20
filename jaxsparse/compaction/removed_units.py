"""Units that are removed, seen from the values of a program."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from jaxsparse.coupling.axis_labels import Axis, Labels
from jaxsparse.coupling.axis_rules import Axes
from jaxsparse.coupling.program import Program


class Labeled(NamedTuple):
    """A program and the units of its values.

    Attributes:
      program: the program.
      axes: labels of the axes of each value, by number.
      labels: the sets of labels; a unit is a set that is not fixed.
    """

    program: Program
    axes: list[Axes]
    labels: Labels

    def units(self) -> set[int]:
        """Returns the units that have an index in some leaf."""
        found: set[int] = set()
        for number in self.program.leaves.values():
            for axis in self.axes[number]:
                free = ~self.labels.is_fixed(axis[0])
                found |= set(self.labels.sets(axis[0])[free].tolist())
        return found


class Removed(NamedTuple):
    """A choice of units to remove.

    Attributes:
      labeled: the program and its units.
      units: the units, sorted.
    """

    labeled: Labeled
    units: np.ndarray

    def along(self, axis: Axis) -> Bool[np.ndarray, " _"]:
        """Returns which indices of an axis are removed.

        Args:
          axis: labels of the axis.
        """
        found = np.zeros((), bool)
        for factor in axis:
            gone = np.isin(self.labeled.labels.sets(factor), self.units)
            found = (found[..., None] | gone).reshape(-1)
        return found.reshape(-1)

    def entries(self, number: int) -> Bool[np.ndarray, "..."]:
        """Returns which entries of a value are removed.

        Args:
          number: number of the value.
        """
        shape = self.labeled.program.avals[number].shape
        found = np.broadcast_to(False, shape)
        for i, axis in enumerate(self.labeled.axes[number]):
            gone = self.along(axis)
            if gone.any():
                found = found | gone.reshape([-1] + [1] * (len(shape) - i - 1))
        return found

    def owners(self, axis: Axis, indices: np.ndarray) -> set[int]:
        """Returns the removed units that own some indices of an axis.

        Args:
          axis: labels of the axis.
          indices: positions along it.
        """
        sizes = [len(factor) for factor in axis]
        found: set[int] = set()
        for factor, places in zip(axis, np.unravel_index(indices, sizes), strict=True):
            found |= set(self.labeled.labels.sets(factor[places]).tolist())
        return found & set(self.units.tolist())


def choose(labeled: Labeled, units: set[int]) -> Removed:
    """Makes a choice of units to remove.

    Args:
      labeled: the program and its units.
      units: the units.
    """
    return Removed(labeled, np.array(sorted(units), np.int64))
