"""Arrays: numbers that a report is given, checked and made into arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Shapes = Mapping[str, tuple[str | int, ...]]


def read(
    entry: Mapping[str, Any],
    shapes: Shapes,
    where: str,
    sizes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Makes arrays of the fields that are there and not empty.

    Args:
      entry: numbers, or lists of them; null is NaN.
      shapes: of the fields, with names for axes of any length; axes of one name are
        equally long.
      where: what to call the entry in errors.
      sizes: lengths of axes that are known.

    Returns:
      Floats, and arrays of float64, by field.

    Raises:
      ValueError: for what has another shape, or is no number.

    Examples:
      >>> read({"steps": [0, None]}, {"steps": ("n",), "norm": ("n",)}, "arm")
      {'steps': array([ 0., nan])}
    """
    sizes = dict(sizes or {})
    made = {}
    for name, shape in shapes.items():
        if entry.get(name) is None:
            continue
        try:
            array = np.array(entry[name], float)
        except (TypeError, ValueError):
            array = None
        if array is not None and not array.size:
            continue
        wanted = tuple(sizes.get(axis, axis) for axis in shape)
        if array is None or not _fits(array.shape, wanted):
            came = "lists of different lengths, or no numbers"
            came = came if array is None else f"numbers of shape {_words(array.shape)}"
            raise ValueError(
                f"{where}.{name}: {came}; wanted numbers of shape {_words(wanted)}; "
                "give one for each"
            )
        sizes |= dict(zip(shape, array.shape, strict=True))
        made[name] = array if shape else float(array)
    return made


def _fits(shape: tuple[int, ...], wanted: tuple[str | int, ...]) -> bool:
    """Says whether a shape is as wanted, where names stand for any length."""
    return len(shape) == len(wanted) and all(
        isinstance(want, str) or got == want
        for got, want in zip(shape, wanted, strict=True)
    )


def _words(shape: Sequence[str | int]) -> str:
    """Writes a shape."""
    return f"({', '.join(str(axis) for axis in shape)})"
