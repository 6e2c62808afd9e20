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
      ValueError: count: got 0; wanted an integer, 1 or more
    """

    def wrap(function: F) -> F:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            for name, look in checks.items():
                if name in given:
                    look(name, given[name])
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


def optional(look: Check) -> Check:
    """Makes a check that accepts None and checks all other values.

    Args:
      look: check of values other than None.
    """
    return lambda name, value: None if value is None else look(name, value)


def integer(least: int | None = None, most: int | None = None) -> Check:
    """Makes a check that a value is an integer in a range.

    Accepts integers of Python, NumPy and JAX, but neither bool nor float.

    Args:
      least: the smallest value allowed; None for no lower limit.
      most: the largest value allowed; None for no upper limit.

    Returns:
      The check. It raises TypeError for a value that is not an integer and ValueError
      for one out of range.
    """

    def look(name: str, value: Any) -> None:
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
        wanted = f"wanted an integer{_range(least, most)}"
        if number is None:
            raise TypeError(f"{name}: got {value!r}; {wanted}")
        if not _is_within(number, least, most):
            raise ValueError(f"{name}: got {number}; {wanted}")

    return look


def number(
    least: float | int | None = None,
    most: float | int | None = None,
    *,
    above: bool = False,
    finite: bool = True,
) -> Check:
    """Makes a check that a value is a real number in a range, and not NaN.

    Args:
      least: lower limit; None for no lower limit.
      most: the largest value allowed; None for no upper limit.
      above: whether the value must be strictly above `least`.
      finite: whether infinite values are rejected.

    Returns:
      The check. It raises TypeError for a value that is not a number and ValueError for
      NaN or a number out of range.
    """

    def look(name: str, value: Any) -> None:
        if _is_traced(value):
            return
        kind = "finite number" if finite else "number"
        wanted = f"wanted a {kind}{_range(least, most, above)}"
        found = _real(value)
        if found is None:
            raise TypeError(f"{name}: got {value!r}; {wanted}")
        inside = _is_within(found, least, most) and not (above and found == least)
        bad = not math.isfinite(found) if finite else math.isnan(found)
        if bad or not inside:
            raise ValueError(f"{name}: got {value}; {wanted}")

    return look


def real(name: str, value: Any) -> None:
    """Checks that a value is a real number; the function itself checks the range.

    Raises:
      TypeError: if the value is not a number.
    """
    if not _is_traced(value) and _real(value) is None:
        raise TypeError(f"{name}: got {value!r}; wanted a number")


def fraction(name: str, value: Any) -> None:
    """Checks that a value is a fraction to remove, in [0, 1).

    A traced value raises JAX's concretization error.

    Raises:
      TypeError: if the value is not a number.
      ValueError: if it is out of range.
    """
    wanted = "wanted a fraction to remove in [0, 1); to remove 90 % say 0.9"
    found = _real(value)
    if found is None:
        raise TypeError(f"{name}: got {value!r}; {wanted}")
    if not 0 <= found < 1:
        raise ValueError(f"{name}: got {value}; {wanted}")


def one_of(known: Collection[str]) -> Check:
    """Makes a check that a value is one of some names.

    Args:
      known: the allowed names.

    Returns:
      The check. It raises TypeError for a value that is not a string and ValueError for
      an unknown name.
    """

    def look(name: str, value: Any) -> None:
        if not isinstance(value, str):
            raise TypeError(f"{name}: got {value!r}; wanted one of {list(known)}")
        if value not in known:
            raise ValueError(f"{name}: got {value!r}; wanted one of {list(known)}")

    return look


def function(name: str, value: Any) -> None:
    """Checks that a value is callable.

    Raises:
      TypeError: if it is not.
    """
    if not callable(value):
        raise TypeError(f"{name}: got {value!r}; wanted a function")


def name_or_function(name: str, value: Any) -> None:
    """Checks that a value is a string, which the function looks up later, or callable.

    Raises:
      TypeError: if it is neither.
    """
    if not isinstance(value, str) and not callable(value):
        raise TypeError(f"{name}: got {value!r}; wanted a name or a function")


def name_function_or_table(name: str, value: Any) -> None:
    """Checks that a value is a name, a callable, or a sequence of numbers.

    The elements of a sequence are not checked.

    Raises:
      TypeError: if the value is neither a sequence, such as a string, nor callable.
    """
    if not isinstance(value, Sequence | np.ndarray) and not callable(value):
        raise TypeError(f"{name}: got {value!r}; wanted a name, a function or a table")


def optimizer(name: str, value: Any) -> None:
    """Checks that a value is an optax optimizer, with `init` and `update`.

    Raises:
      TypeError: if it is not.
    """
    if not (callable(getattr(value, "init", None)) and hasattr(value, "update")):
        raise TypeError(f"{name}: got {value!r}; wanted an optimizer such as optax.sgd")


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

    def look(name: str, value: Any) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"{name}: got {value!r}; wanted a {kind.__name__}")

    return look


def path(name: str, value: Any) -> None:
    """Wants a path of the file system."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}: got {value!r}; wanted a string or a pathlib.Path")


def key(name: str, value: Any) -> None:
    """Wants a random key, typed or as raw key data."""
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
                f"{name}: {leaf_name or 'it'} is of {leaf.dtype}; wanted bool, as of "
                "masks.ones"
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
        raise ValueError(f"{name}: no leaf is there; wanted a tree of {what}")
    for leaf_name, leaf in leaves.items():
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise TypeError(
                f"{name}: {leaf_name or 'it'} is {leaf!r}; wanted a tree of {what}"
            )
    return leaves


def _is_traced(value: Any) -> bool:
    # Tracers have a dtype and a shape but no value.
    return isinstance(value, jax.core.Tracer)


def _real(value: Any) -> float | None:
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


def _is_within(value: Any, least: Any, most: Any) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def _range(least: Any, most: Any, above: bool = False) -> str:
    if least is None:
        return "" if most is None else f", {most} or less"
    if most is None:
        return f" above {least}" if above else f", {least} or more"
    return f" from {least} to {most}"
