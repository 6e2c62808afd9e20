"""Checks of annotated shapes and dtypes, made once where jaxtyping makes them often.

jaxtyping has each function of the package checked by `check`, and makes the checks of a
nested function anew whenever the function around it is called.
"""

import types
from collections.abc import Callable
from typing import Any

import jaxtyping._typeguard
from beartype import beartype
from beartype.door import is_bearable

CHECKS: dict[Any, Callable] = {}


def check(function: Callable) -> Callable:
    """Has a function check its arguments.

    It uses the check of an equal signature, if there is one.

    Args:
      function: what jaxtyping makes of a signature. It has no body that matters.
    """
    if not isinstance(function, types.FunctionType):
        return beartype(function)
    optional = len(function.__defaults__ or ()), *(function.__kwdefaults__ or ())
    name = function.__module__, function.__qualname__
    key = function.__code__, name, optional, *function.__annotations__.items()
    try:
        hash(key)
    except TypeError:  # an annotation such as Literal[[]]
        return beartype(function)
    if key not in CHECKS:
        CHECKS[key] = beartype(function)
    return CHECKS[key]


def check_leaf(annotated: Callable) -> Callable[[object], None]:
    """Makes the check of a pytree's leaves, whose type is the annotation of `x`."""
    leaf_type = annotated.__annotations__["x"]

    def check(x: object) -> None:
        if not is_bearable(x, leaf_type):
            raise TypeError

    return check


# jaxtyping's own is made for every pytree, and raises an error with a message for each
# node that isn't a leaf: a sixth of the time of all tests.
jaxtyping._typeguard.typechecked = check_leaf
