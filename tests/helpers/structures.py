"""Structures of sparsity, and the counts that they can keep."""

from typing import Any

import numpy as np
import pytest

from jaxsparse import select

STRUCTURES = (
    select.n_of_m(2),
    select.n_of_m(4),
    select.n_of_m(18),  # too long to compare all pairs
    select.blocks((2, 3)),
    select.blocks((1, 1)),
    select.channels(),
    select.fan_in(),
    select.diagonals(),
)
each_structure = pytest.mark.parametrize("structure", STRUCTURES, ids=repr)


def diagonal(i: Any, o: Any, inputs: int, outputs: int) -> Any:
    """The number of the wrapped diagonal of the weight from input i to output o."""
    return (o - i) % outputs if inputs <= outputs else (i - o) % inputs


def step(structure: select.Structure, shape: tuple[int, ...]) -> int:
    view = select.unit_view(structure, "a", shape)
    return view.rows * view.members


def counts_of(structure: select.Structure, shape: tuple[int, ...]) -> list[int]:
    each = step(structure, shape)
    return list(range(0, int(np.prod(shape)) + 1, each))
