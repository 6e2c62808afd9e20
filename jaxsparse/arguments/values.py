"""Checks of names, functions, patterns, keys and instances."""

import os
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from jaxsparse import rng, tree
from jaxsparse.arguments.decorator import Check


def optional(check_value: Check) -> Check:
    """Makes a check that accepts None and checks all other values.

    Args:
      check_value: check of values other than None.
    """
    return lambda name, value: None if value is None else check_value(name, value)


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
