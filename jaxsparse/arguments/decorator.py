"""Checks the arguments of a function before each call, and the fields of a record."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar

# Called with an argument's name and value; raises an error if the value is wrong.
Check = Callable[[str, Any], None]

F = TypeVar("F", bound=Callable[..., Any])


def check(**checks: Check) -> Callable[[F], F]:
    """Makes a decorator that checks arguments by name before each call.

    Args:
      **checks: by argument name, a function of the argument's name and value that
        raises ValueError or TypeError if the value is wrong. Omitted arguments are not
        checked.

    Returns:
      The decorator.

    Examples:
      >>> @arguments.check(count=arguments.integer(1))
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
            try:
                given = signature.bind(*args, **kwargs).arguments
            except TypeError as error:
                hint = _place_of(signature, kwargs)
                raise TypeError(f"{function.__name__}: {error}{hint}") from None
            for name, check_value in checks.items():
                if name in given:
                    check_value(name, given[name])
            return function(*args, **kwargs)

        return checked

    return wrap


def _place_of(signature: inspect.Signature, given: dict[str, Any]) -> str:
    """Names the record of options that has an unknown argument as a field.

    Args:
      signature: signature of the function that was called.
      given: the keyword arguments of the call.

    Returns:
      The end of an error message; "" if no record has a field of such a name.
    """
    unknown = [name for name in given if name not in signature.parameters]
    for parameter in signature.parameters.values():
        for kind in typing.get_args(parameter.annotation):
            if not dataclasses.is_dataclass(kind):
                continue
            fields = {field.name for field in dataclasses.fields(kind)}
            for name in unknown:
                if name in fields:
                    record = getattr(kind, "__name__", "")
                    return f"; pass {parameter.name}={record}({name}=...)"
    return ""


def check_fields(record: Any, **checks: Check) -> None:
    """Checks fields of a record of options, for `__post_init__` of a dataclass.

    Args:
      record: the record; its fields are attributes.
      **checks: by field name, a function of the field's name and value that raises
        ValueError or TypeError if the value is wrong.

    Examples:
      >>> import dataclasses
      >>> @dataclasses.dataclass(frozen=True, kw_only=True)
      ... class Options:
      ...     count: int = 1
      ...
      ...     def __post_init__(self):
      ...         arguments.check_fields(self, count=arguments.integer(1))
      >>> Options(count=0)
      Traceback (most recent call last):
      ValueError: count: expected an integer of at least 1, got 0
    """
    for name, check_value in checks.items():
        check_value(name, getattr(record, name))
