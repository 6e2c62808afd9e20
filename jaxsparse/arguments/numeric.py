"""Checks of integers and real numbers. Traced values are unknown and pass."""

import math
import numbers
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsparse.arguments.decorator import Check


def integer(minimum: int | None = None, maximum: int | None = None) -> Check:
    """Makes a check that a value is an integer in a range.

    Accepts integers of Python, NumPy and JAX, but neither bool nor float.

    Args:
      minimum: the smallest value allowed; None for no lower limit.
      maximum: the largest value allowed; None for no upper limit.

    Returns:
      The check. It raises TypeError for a value that is not an integer and ValueError
      for one out of range.
    """

    def check_integer(name: str, value: Any) -> None:
        if _is_traced(value):
            return
        # bool is a subclass of int, and `True` for a count is most likely a mistake.
        # `operator.index` accepts integers of all libraries and rejects floats.
        try:
            number = (
                None if isinstance(value, bool | np.bool) else operator.index(value)
            )
        except TypeError:
            number = None
        expected = f"an integer{_range(minimum, maximum)}"
        if number is None:
            raise TypeError(f"{name}: expected {expected}, got {value!r}")
        if not _is_within(number, minimum, maximum):
            raise ValueError(f"{name}: expected {expected}, got {number}")

    return check_integer


def number(
    minimum: float | int | None = None,
    maximum: float | int | None = None,
    *,
    above: bool = False,
    below: bool = False,
    finite: bool = True,
) -> Check:
    """Makes a check that a value is a real number in a range, and not NaN.

    Args:
      minimum: lower limit; None for no lower limit.
      maximum: upper limit; None for no upper limit.
      above: whether the value must be strictly above `minimum`.
      below: whether the value must be strictly below `maximum`.
      finite: whether infinite values are rejected.

    Returns:
      The check. It raises TypeError for a value that is not a number and ValueError for
      NaN or a number out of range.
    """

    def check_number(name: str, value: Any) -> None:
        if _is_traced(value):
            return
        kind = "finite number" if finite else "number"
        expected = f"a {kind}{_range(minimum, maximum, above, below)}"
        real = _as_float(value)
        if real is None:
            raise TypeError(f"{name}: expected {expected}, got {value!r}")
        at_limit = (above and real == minimum) or (below and real == maximum)
        is_inside = _is_within(real, minimum, maximum) and not at_limit
        is_valid = math.isfinite(real) if finite else not math.isnan(real)
        if not (is_valid and is_inside):
            raise ValueError(f"{name}: expected {expected}, got {value}")

    return check_number


def real(name: str, value: Any) -> None:
    """Checks that a value is a real number; the function itself checks the range.

    Raises:
      TypeError: if the value is not a number.
    """
    if not _is_traced(value) and _as_float(value) is None:
        raise TypeError(f"{name}: expected a number, got {value!r}")


def fraction(name: str, value: Any) -> None:
    """Checks that a value is a fraction to remove, in [0, 1).

    A traced value raises JAX's concretization error.

    Raises:
      TypeError: if the value is not a number.
      ValueError: if it is out of range.
    """
    expected = "expected a fraction to remove, in [0, 1)"
    remedy = "write 0.9 to remove 90 %"
    real = _as_float(value)
    if real is None:
        raise TypeError(f"{name}: {expected}, got {value!r}; {remedy}")
    if not 0 <= real < 1:
        raise ValueError(f"{name}: {expected}, got {value}; {remedy}")


def _is_traced(value: Any) -> bool:
    # Tracers have a dtype and a shape but no value.
    return isinstance(value, jax.core.Tracer)


def _as_float(value: Any) -> float | None:
    """Converts a real number or an array with one element and no axes to float.

    Returns:
      The float; None if the value is neither, or is a bool.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # an integer of 310 digits or more
            return math.copysign(math.inf, value > 0 or -1)
    # `jnp.issubdtype` and not NumPy's, which does not count bfloat16 as a number.
    is_scalar = isinstance(value, jax.Array | np.ndarray | np.generic)
    if is_scalar and jnp.ndim(value) == 0 and jnp.issubdtype(value.dtype, jnp.number):
        return float(value)
    return None


def _is_within(value: Any, minimum: Any, maximum: Any) -> bool:
    return (minimum is None or value >= minimum) and (
        maximum is None or value <= maximum
    )


def _range(minimum: Any, maximum: Any, above: bool = False, below: bool = False) -> str:
    """Describes a range, to follow a noun such as "an integer"."""
    highest = f"below {maximum}" if below else f"{maximum}"
    if minimum is None:
        return "" if maximum is None else f" {'' if below else 'of at most '}{highest}"
    if maximum is None:
        return f" above {minimum}" if above else f" of at least {minimum}"
    return f" from {'above ' if above else ''}{minimum} to {highest}"
