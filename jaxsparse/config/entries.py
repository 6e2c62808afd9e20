"""Adds entries to the registries, for the functions of `registering`."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from jaxsparse.config import schema, specs
from jaxsparse.config.registries import Registry

Function = Callable[..., Any]
# Modules through which a registration passes, between its caller and the registry.
_OWN = (__name__, "jaxsparse.config.registering")


def check_fields(named: set[str]) -> None:
    """Checks that fields are in the config's section "sparse".

    Args:
      named: names of fields.

    Raises:
      ValueError: if one is not a field.
    """
    unknown = sorted(named - set(schema.read_only_default().sparse))
    if unknown:
        raise ValueError(
            f"arguments: expected fields of config.sparse, got {unknown}; declare "
            "fields of its own as options"
        )


def add(
    registry: Registry[Any],
    make: type[specs.Spec],
    name: str,
    function: Function | str | None,
    fields: Mapping[str, Any],
) -> Any:
    """Adds an entry to a registry, or returns a decorator that adds it.

    Args:
      registry: the registry.
      make: class of the entry.
      name: name of the entry in configs.
      function: function of the entry, or its "module:name"; None for a decorator.
      fields: further attributes of the entry.
    """
    if function is None:
        return lambda given: add(registry, make, name, given, fields)
    if not (callable(function) or isinstance(function, str)):
        raise TypeError(
            f"register_{registry.kind}: expected a function, got "
            f"{type(function).__name__}"
        )
    wrong = [k for k, v in fields["options"].items() if not _is_plain(v)]
    if wrong or not (isinstance(name, str) and name.isidentifier()):
        raise ValueError(
            f"register_{registry.kind}: expected a name of letters, digits and "
            f"underscores, and options that are a bool, int, float, str or tuple, got "
            f"{name!r} and options {wrong}"
        )
    before = registry.get(name)
    registry.add(make(name=name, function=function, file=_caller(), **fields))
    if fields["options"]:
        try:
            schema.default()  # raises if an option is already a field
        except ValueError:
            # Otherwise all later calls of `default` would fail, too.
            registry.restore(name, before)
            raise
    return function


def _caller() -> str:
    """Returns the file that called a `register_*` function; "" for the package itself.

    In tests, jaxtyping's type checks add frames to the call stack, which are skipped.
    """
    frame, own = sys._getframe(), (*_OWN, "jaxtyping._decorator")
    while frame.f_back and frame.f_globals.get("__name__") in own:
        frame = frame.f_back
    inside = frame.f_globals.get("__name__", "").startswith(specs.PACKAGE)
    return "" if inside else frame.f_code.co_filename


def _is_plain(value: Any) -> bool:
    return type(value) in (bool, int, float, str, tuple)
