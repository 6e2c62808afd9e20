"""What arguments of public functions must be, checked before anything is computed.

A function says so in a line above it, and a wrong argument is an error by its name:

    @arguments.check(masks=arguments.masks, level=arguments.integer(0))
    def layer_counts(masks, level, rule): ...

Values that JAX traces pass: only their kind is known.
"""

import functools
import inspect
import math
import numbers
import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxsparse import tree

# Called with an argument's name and value; raises, or does nothing.
Check = Callable[[str, Any], None]
F = TypeVar("F", bound=Callable[..., Any])


def check(**checks: Check) -> Callable[[F], F]:
    """Makes a decorator that looks at arguments by name before each call.

    Args:
      **checks: what to call for an argument. It raises ValueError or TypeError.

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


def optional(look: Check) -> Check:
    """Lets None pass."""
    return lambda name, value: None if value is None else look(name, value)


def integer(least: int | None = None, most: int | None = None) -> Check:
    """Wants an integer of Python, NumPy or JAX in a range; no bool, no float."""

    def look(name: str, value: Any) -> None:
        if _is_traced(value):
            return
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
    """Wants a number in a range, never NaN.

    Args:
      least: the smallest it may be; None for any.
      most: the largest.
      above: whether it must be larger than `least`.
      finite: whether infinity is refused.
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
    """Wants a real number, in a range that the function itself checks."""
    if not _is_traced(value) and _real(value) is None:
        raise TypeError(f"{name}: got {value!r}; wanted a number")


def fraction(name: str, value: Any) -> None:
    """Wants a fraction to remove, in [0, 1)."""
    wanted = "wanted a fraction to remove in [0, 1); to remove 90 % say 0.9"
    found = _real(value)
    if found is None:
        raise TypeError(f"{name}: got {value!r}; {wanted}")
    if not 0 <= found < 1:
        raise ValueError(f"{name}: got {value}; {wanted}")


def one_of(known: Collection[str]) -> Check:
    """Wants one of some names."""

    def look(name: str, value: Any) -> None:
        if not isinstance(value, str):
            raise TypeError(f"{name}: got {value!r}; wanted one of {list(known)}")
        if value not in known:
            raise ValueError(f"{name}: got {value!r}; wanted one of {list(known)}")

    return look


def function(name: str, value: Any) -> None:
    """Wants what can be called."""
    if not callable(value):
        raise TypeError(f"{name}: got {value!r}; wanted a function")


def name_or_function(name: str, value: Any) -> None:
    """Wants a name, which is looked up later, or what can be called."""
    if not isinstance(value, str) and not callable(value):
        raise TypeError(f"{name}: got {value!r}; wanted a name or a function")


def name_function_or_table(name: str, value: Any) -> None:
    """Wants a name, what can be called, or a sequence of numbers."""
    if not isinstance(value, Sequence | np.ndarray) and not callable(value):
        raise TypeError(f"{name}: got {value!r}; wanted a name, a function or a table")


def optimizer(name: str, value: Any) -> None:
    """Wants a transformation of optax: what has `init` and `update`."""
    if not (callable(getattr(value, "init", None)) and hasattr(value, "update")):
        raise TypeError(f"{name}: got {value!r}; wanted an optimizer such as optax.sgd")


def patterns(name: str, value: Any) -> None:
    """Wants a tuple of shell patterns."""
    tree.check_globs(value, field=name)


def instance(kind: type) -> Check:
    """Wants an object of a class."""

    def look(name: str, value: Any) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"{name}: got {value!r}; wanted a {kind.__name__}")

    return look


def masks(name: str, value: Any) -> None:
    """Wants a tree with boolean arrays at one leaf or more."""
    for leaf_name, leaf in _arrays(name, value, what="boolean arrays").items():
        if leaf.dtype != np.bool:
            raise ValueError(
                f"{name}: {leaf_name or 'it'} is of {leaf.dtype}; wanted bool, as of "
                "masks.dense"
            )


def weights(name: str, value: Any) -> None:
    """Wants a tree with arrays at one leaf or more."""
    _arrays(name, value, what="arrays")


def _arrays(name: str, value: Any, *, what: str) -> dict[str, Any]:
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
    return isinstance(value, jax.core.Tracer)


def _real(value: Any) -> float | None:
    """Reads a real number, also of an array without axes; None if it is none."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # an integer of 310 digits
            return math.copysign(math.inf, value > 0 or -1)
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
