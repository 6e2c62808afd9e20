"""Checks of arguments of public functions, made before anything is computed.

A decorator states what each argument must be, and a wrong argument raises an error that
begins with its name:

    @arguments.check(masks=arguments.masks, level=arguments.integer(0))
    def layer_counts(masks, level, rule): ...

Every check is called as `check(name, value)`, with the name of the argument, for the
message, and the value that the caller gave.

Traced values are unknown, so checks of integers and numbers accept them. Checks of
trees look only at shapes and dtypes.
"""

import functools
import inspect
import math
import numbers
import operator
import os
import sys
import warnings
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxsparse import rng, tree

# Called with an argument's name and value; raises an error if the value is wrong.
Check = Callable[[str, Any], None]
F = TypeVar("F", bound=Callable[..., Any])
_PACKAGE = str(Path(__file__).parent) + os.sep


def check(**checks: Check) -> Callable[[F], F]:
    """Makes a decorator that checks arguments by name before each call.

    Args:
      **checks: by argument name, a function of the argument's name and value that
        raises ValueError or TypeError if the value is wrong. Omitted arguments are not
        checked.

    Returns:
      The decorator.

    Examples:
      >>> @check(count=integer(1))
      ... def half(count):
      ...     return count / 2
      >>> half(count=0)
      Traceback (most recent call last):
      ValueError: count: expected an integer of at least 1, got 0
    """

    def wrap(function: F) -> F:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            for name, check_value in checks.items():
                if name in given:
                    check_value(name, given[name])
            return function(*args, **kwargs)

        return checked

    return wrap


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns at the line outside this package that led to the warning.

    Args:
      message: what is probably wrong, and the remedy.
      category: class of the warning.

    Warns:
      UserWarning: or `category`. Its file and line are those of the innermost function
        on the call stack that is not defined in this package.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def optional(check_value: Check) -> Check:
    """Makes a check that accepts None and checks all other values.

    Args:
      check_value: check of values other than None.
    """
    return lambda name, value: None if value is None else check_value(name, value)


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
    finite: bool = True,
) -> Check:
    """Makes a check that a value is a real number in a range, and not NaN.

    Args:
      minimum: lower limit; None for no lower limit.
      maximum: the largest value allowed; None for no upper limit.
      above: whether the value must be strictly above `minimum`.
      finite: whether infinite values are rejected.

    Returns:
      The check. It raises TypeError for a value that is not a number and ValueError for
      NaN or a number out of range.
    """

    def check_number(name: str, value: Any) -> None:
        if _is_traced(value):
            return
        kind = "finite number" if finite else "number"
        expected = f"a {kind}{_range(minimum, maximum, above)}"
        real = _as_float(value)
        if real is None:
            raise TypeError(f"{name}: expected {expected}, got {value!r}")
        is_inside = _is_within(real, minimum, maximum) and not (
            above and real == minimum
        )
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


def one_of(known: Collection[str]) -> Check:
    """Makes a check that a value is one of some names.

    Args:
      known: the allowed names.

    Returns:
      The check. It raises TypeError for a value that is not a string and ValueError for
      an unknown name.
    """

    def check_name(name: str, value: Any) -> None:
        if not isinstance(value, str):
            raise TypeError(f"{name}: expected one of {list(known)}, got {value!r}")
        if value not in known:
            raise ValueError(f"{name}: expected one of {list(known)}, got {value!r}")

    return check_name


def function(name: str, value: Any) -> None:
    """Checks that a value is callable.

    Raises:
      TypeError: if it is not.
    """
    if not callable(value):
        raise TypeError(f"{name}: expected a function, got {value!r}")


def name_or_function(name: str, value: Any) -> None:
    """Checks that a value is a string, which the function looks up later, or callable.

    Raises:
      TypeError: if it is neither.
    """
    if not isinstance(value, str) and not callable(value):
        raise TypeError(f"{name}: expected a name or a function, got {value!r}")


def name_function_or_table(name: str, value: Any) -> None:
    """Checks that a value is a name, a callable, or a sequence of numbers.

    The elements of a sequence are not checked.

    Raises:
      TypeError: if the value is neither a sequence, such as a string, nor callable.
    """
    if not isinstance(value, Sequence | np.ndarray) and not callable(value):
        raise TypeError(
            f"{name}: expected a name, a function or a sequence of numbers, got "
            f"{value!r}"
        )


def optimizer(name: str, value: Any) -> None:
    """Checks that a value is an optax optimizer, with `init` and `update`.

    Raises:
      TypeError: if it is not.
    """
    if not (callable(getattr(value, "init", None)) and hasattr(value, "update")):
        raise TypeError(
            f"{name}: expected an optax optimizer, such as optax.sgd(0.1), got "
            f"{value!r}"
        )


def patterns(name: str, value: Any) -> None:
    """Checks that a value is a sequence of shell patterns, such as ("head/*",).

    Raises:
      TypeError: if it is a string or contains anything but strings.
    """
    tree.check_globs(value, field=name)


def instance(kind: type) -> Check:
    """Makes a check that a value is an instance of a class.

    Args:
      kind: the class.

    Returns:
      The check. It raises TypeError for other values.
    """

    def check_instance(name: str, value: Any) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"{name}: expected a {kind.__name__}, got {value!r}")

    return check_instance


def path(name: str, value: Any) -> None:
    """Checks that a value is a path of the file system.

    Raises:
      TypeError: if it is neither a string nor a `pathlib.Path`.
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}: expected a string or a pathlib.Path, got {value!r}")


def key(name: str, value: Any) -> None:
    """Checks that a value is a random key, typed or as raw key data.

    Raises:
      TypeError: if it is neither.
    """
    rng.as_typed(value, field=name)


def masks(name: str, value: Any) -> None:
    """Checks that a value is a tree of boolean arrays, with at least one leaf.

    Raises:
      TypeError: if a leaf is not an array.
      ValueError: if there are no leaves, or an array is not boolean; the message names
        the leaf.
    """
    for leaf_name, leaf in _arrays(name, value, what="boolean arrays").items():
        if leaf.dtype != np.bool:
            raise ValueError(
                f"{_place(name, leaf_name)}: expected a boolean array, got dtype "
                f"{leaf.dtype}; make masks with `masks.ones`"
            )


def weights(name: str, value: Any) -> None:
    """Checks that a value is a tree of arrays, with at least one leaf.

    Raises:
      TypeError: if a leaf is not an array; the message names the leaf.
      ValueError: if there are no leaves.
    """
    _arrays(name, value, what="arrays")


def _arrays(name: str, value: Any, *, what: str) -> dict[str, Any]:
    """Returns the leaves of a tree of arrays by name, or raises if it is not one."""
    leaves = tree.named_leaves(value)
    if not leaves:
        raise ValueError(f"{name}: expected a tree of {what}, got no leaves")
    for leaf_name, leaf in leaves.items():
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise TypeError(
                f"{_place(name, leaf_name)}: expected a tree of {what}, got the leaf "
                f"{leaf!r}"
            )
    return leaves


def _place(name: str, leaf_name: str) -> str:
    """Names a leaf of an argument; a bare array has a leaf without a name."""
    return f"{name}: {leaf_name}" if leaf_name else name


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


def _range(minimum: Any, maximum: Any, above: bool = False) -> str:
    """Describes a range, to follow a noun such as "an integer"."""
    if minimum is None:
        return "" if maximum is None else f" of at most {maximum}"
    if maximum is None:
        return f" above {minimum}" if above else f" of at least {minimum}"
    return f" from {minimum} to {maximum}"
