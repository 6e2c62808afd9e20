"""Calls methods with flat keywords, which it sorts into the records they take.

Tables of tests combine settings of many methods as dicts of keywords.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from jaxsparse import transforms

UPDATES: dict[str, type] = {
    "sparse_evolution": transforms.SparseEvolutionOptions,
    "rigl": transforms.RigLOptions,
    "srigl": transforms.SRigLOptions,
    "mest": transforms.MESTOptions,
    "snfs": transforms.SNFSOptions,
    "chts": transforms.CHTsOptions,
    "east": transforms.EASTOptions,
    "neurrev": transforms.NeurRevOptions,
    "granet": transforms.GraNetOptions,
}


def records(make: Callable[..., Any]) -> dict[str, type]:
    """The arguments of a function that are records of options, and their classes."""
    known: dict[str, type] = {
        "layers": transforms.LayerOptions,
        "ramp": transforms.SparsityRamp,
    }
    if make.__name__ in UPDATES:
        known["updates"] = UPDATES[make.__name__]
    parameters = inspect.signature(make).parameters
    return {name: kind for name, kind in known.items() if name in parameters}


def fields(make: Callable[..., Any]) -> set[str]:
    """The names of all fields of the records that a function takes."""
    kinds = records(make).values()
    return {field.name for kind in kinds for field in dataclasses.fields(kind)}


def nest(make: Callable[..., Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Moves keywords that are fields of a record into that record."""
    rest, made = dict(flat), {}
    for name, kind in records(make).items():
        names = [field.name for field in dataclasses.fields(kind)]
        given = {field: rest.pop(field) for field in names if field in rest}
        if given:
            made[name] = kind(**given)
    return rest | made


def call(make: Callable[..., Any], *args: Any, **flat: Any) -> Any:
    return make(*args, **nest(make, flat))


def defaults(make: Callable[..., Any]) -> dict[str, Any]:
    """The defaults that are not None, of arguments and of the fields of records."""
    found = {
        name: parameter.default
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    for kind in records(make).values():
        found |= {field.name: field.default for field in dataclasses.fields(kind)}
    return {name: value for name, value in found.items() if value is not None}
