"""Labels of axes: which indices of which arrays are one neuron or channel.

Every index of every axis has a label, an integer. Indices with the same label are one
unit: they can only be removed together. `Labels` joins labels as the rules of the
primitives require, and fixes labels of indices that cannot be removed.

Reshaping can merge axes and split them again, as those of attention heads. So an axis
is a tuple of factors, in row-major order: arrays of labels whose lengths multiply to
the length of the axis. An index is removed if one of its factors' indices is removed.

At some places only one of several factors can have units, such as the heads or the
features of a head. It is the first one, unless `Labels` is told to take another.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

Factor = Int[np.ndarray, " _"]
Axis = tuple[Factor, ...]
SPLIT = "part of an axis that is split by a reshape"  # why some indices are fixed


class Choice(NamedTuple):
    """A place where only one of several factors can have units.

    Attributes:
      sizes: lengths of the factors.
      options: the factors that had units before, by position.
      labels: labels of the factor that keeps its units.
    """

    sizes: tuple[int, ...]
    options: tuple[int, ...]
    labels: Factor


class Labels:
    """Sets of labels that are joined step by step, and those of them that are fixed."""

    def __init__(self, taken: dict[int, int] | None = None) -> None:
        """Starts without labels.

        Args:
          taken: which option is taken at a choice, by the number of the choice; 0, the
            first, where it is not given.
        """
        self._taken = taken or {}
        self._choices: list[Choice] = []
        self._parent = np.zeros(0, np.int64)
        self._fixed = np.zeros(0, bool)  # of the first label of each set
        self._count = 0
        self._reasons: dict[int, str] = {}  # by the first label of a set

    def fresh(self, length: int) -> Axis:
        """Makes an axis of new labels.

        Args:
          length: length of the axis.
        """
        start, self._count = self._count, self._count + length
        if self._count > len(self._parent):
            more = max(self._count, 2 * len(self._parent), 1024) - len(self._parent)
            grown = np.arange(len(self._parent), len(self._parent) + more)
            self._parent = np.concatenate([self._parent, grown])
            self._fixed = np.concatenate([self._fixed, np.zeros(more, bool)])
        return (np.arange(start, self._count),)

    def constant(self, length: int, reason: str) -> Axis:
        """Makes an axis of indices that cannot be removed.

        Args:
          length: length of the axis.
          reason: why they cannot be removed.
        """
        ((label,),) = self.fresh(1)
        self.fix((np.array([label]),), reason)
        return (np.full(length, label),)

    def sets(self, labels: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
        """Returns the first label of the set of each label.

        Args:
          labels: labels, of any shape.
        """
        found = self._parent[labels]
        while True:
            further = self._parent[found]
            if np.array_equal(further, found):
                break
            found = further
        self._parent[labels] = found  # shortens later searches
        return found

    def is_fixed(self, labels: Int[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n"]:
        """Returns whether labels belong to fixed sets.

        Args:
          labels: labels, of any shape.
        """
        return self._fixed[self.sets(labels)]

    def reason(self, label: int) -> str:
        """Returns why a label is fixed; empty if it is not.

        Args:
          label: the label.
        """
        return self._reasons.get(int(self.sets(np.array([label]))[0]), "")

    def fix(self, axis: Axis, reason: str) -> None:
        """Fixes all indices of an axis.

        Args:
          axis: the axis.
          reason: why they cannot be removed; the first reason of a set is kept.
        """
        for factor in axis:
            for label in np.unique(self.sets(factor)):
                self._fix(int(label), reason)

    def join(self, first: Factor, second: Factor) -> None:
        """Joins the labels of two arrays index by index.

        Args:
          first: labels.
          second: as many labels.
        """
        pairs = np.stack([self.sets(first), self.sets(second)], -1).reshape(-1, 2)
        for pair in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0):
            a, b = sorted(map(int, self.sets(pair)))
            if a == b or (self._fixed[a] and self._fixed[b]):
                continue
            # A fixed set stays apart, so that each keeps the reason of its own.
            if self._fixed[a] or self._fixed[b]:
                known, other = (a, b) if self._fixed[a] else (b, a)
                self._fix(other, self._reasons[known])
            else:
                self._parent[b] = a

    def unify(self, first: Axis, second: Axis, reason: str) -> None:
        """Joins two axes of the same length, whatever their factors.

        Args:
          first: an axis.
          second: another axis.
          reason: why their indices are fixed if the factors do not fit together.
        """
        if len(first) == len(second) == 1:
            self.join(first[0], second[0])
            return
        bounds = sorted({*_bounds(first), *_bounds(second)})
        # Where one axis has a fixed factor, the other is not split into units.
        free = [self._free(axis, bounds) for axis in (first, second)]
        both = [a and b for a, b in zip(*free, strict=True)]
        parts = [self.refine(axis, bounds, both) for axis in (first, second)]
        if None in parts:
            self.fix(first + second, reason)
            return
        for a, b in zip(*parts, strict=True):
            self.join(a, b)

    def refine(
        self, axis: Axis, bounds: Sequence[int], free: Sequence[bool] = ()
    ) -> Axis | None:
        """Splits the factors of an axis.

        Args:
          axis: the axis.
          bounds: products of the lengths of the first one, two, ... factors wanted,
            increasing, which include those of the axis.
          free: which of the factors wanted may keep labels that differ; all if empty.

        Returns:
          The factors, without those of length 1; None if no factors have these
          lengths.
        """
        parts, before = [], 1
        steps = list(bounds)
        for factor in axis:
            if len(factor) == 1:
                continue
            sizes = []
            end = before * len(factor)
            while before < end:
                if not steps or steps[0] % before or steps[0] > end:
                    return None
                sizes.append(steps[0] // before)
                before = steps.pop(0)
            here = list(free[len(parts) : len(parts) + len(sizes)])
            parts += self._split(factor, sizes, here or [True] * len(sizes))
        return tuple(parts)

    def flat(self, axis: Axis, reason: str) -> Factor:
        """Returns one label for each index of an axis.

        If several factors have units, only one of them keeps its units.

        Args:
          axis: the axis.
          reason: why the indices of the other factors are fixed.
        """
        if len(axis) == 1:
            return axis[0]
        sizes = [len(factor) for factor in axis]
        free = [i for i, f in enumerate(axis) if not self.is_fixed(f).all()]
        chosen = self._choose(sizes, free, axis)
        for i in free:
            if i != chosen:
                self.fix((axis[i],), reason)
        shape = [1] * len(sizes)
        shape[chosen] = sizes[chosen]
        return np.broadcast_to(axis[chosen].reshape(shape), sizes).reshape(-1)

    def alternatives(self) -> list[dict[int, int]]:
        """Lists what else could be taken where a factor that was chosen ended fixed.

        Equal choices, as in all layers of a transformer, are changed together. Their
        numbers stay valid, since the order of choices follows from shapes alone.

        Returns:
          Values of `taken` to try, in the order of the choices.
        """
        equal: dict[tuple, list[int]] = {}
        for number, (sizes, options, labels) in enumerate(self._choices):
            if len(options) > 1 and self.is_fixed(labels).any():
                equal.setdefault((sizes, options), []).append(number)
        return [
            self._taken | dict.fromkeys(numbers, place)
            for (_, options), numbers in equal.items()
            for place in range(len(options))
            if any(self._taken.get(number, 0) != place for number in numbers)
        ]

    def _choose(
        self, sizes: Sequence[int], options: Sequence[int], factors: Sequence[Factor]
    ) -> int:
        """Returns the factor that keeps its units; 0 if none of them has any."""
        place = self._taken.get(len(self._choices), 0)
        chosen = options[place if place < len(options) else 0] if options else 0
        choice = Choice(tuple(sizes), tuple(options), factors[chosen])
        self._choices.append(choice)
        return chosen

    def _fix(self, label: int, reason: str) -> None:
        if not self._fixed[label]:
            self._fixed[label] = True
            self._reasons[label] = reason

    def _free(self, axis: Axis, bounds: Sequence[int]) -> list[bool]:
        """Returns which parts between bounds lie in a factor that is not fixed."""
        ends = np.cumprod([len(factor) for factor in axis])
        return [
            not self.is_fixed(axis[int(np.searchsorted(ends, bound))]).all()
            for bound in bounds
        ]

    def _split(
        self, factor: Factor, sizes: list[int], free: list[bool]
    ) -> list[Factor]:
        """Splits a factor into several.

        If its labels differ along more than one of them, they are joined until they
        differ along one only, of those that are free: whole heads, whole groups.
        """
        if len(sizes) <= 1:
            return [factor]
        sets = self.sets(factor)
        grid = np.where(self._fixed[sets], -1, sets).reshape(sizes)
        differs = [
            not np.array_equal(grid, np.broadcast_to(grid.take([0], i), sizes))
            for i in range(len(sizes))
        ]
        options = np.flatnonzero(differs).tolist()[:1]
        if differs.count(True) > 1:
            several = np.flatnonzero(np.logical_and(differs, free)).tolist()
            options = several or options
        chosen = self._choose(sizes, options, [factor] * len(sizes))
        labels = np.moveaxis(factor.reshape(sizes), chosen, 0)
        labels = labels.reshape(sizes[chosen], -1)
        if differs.count(True) > 1:
            for column in labels.T[1:]:
                self.join(labels[:, 0], column)
        return [
            labels[:, 0] if i == chosen else self.constant(size, SPLIT)[0]
            for i, size in enumerate(sizes)
        ]


def _bounds(axis: Axis) -> list[int]:
    """Returns the products of the lengths of the first one, two, ... factors."""
    return np.cumprod([len(factor) for factor in axis if len(factor) > 1]).tolist()
