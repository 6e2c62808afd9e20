"""Which integers among the fields of a linen module determine which axes."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from flax import linen as nn

# What is added to a width to find the axes that it determines. Several, since some
# widths have to be multiples of others.
STEPS = (1, 2, 4, 8, 16)
MOST = 200  # integers that are tried
Shapes = dict[str, tuple[int, ...]]
Place = tuple[Any, ...]  # names of fields, positions in tuples, keys of mappings
Init = Callable[[nn.Module], Shapes | None]  # shapes of variables; None if it fails


class Integer(NamedTuple):
    """An integer among the fields, and the axes that get longer with it.

    Attributes:
      place: where it is.
      value: its value.
      step: what was added to it to find the axes.
      growth: by how much each axis gets longer then, by leaf and number of the axis.
    """

    place: Place
    value: int
    step: int
    growth: dict[tuple[str, int], int]


def _parts(value: Any) -> dict[Any, Any]:
    """Returns what may have integers in it, by the next step of their places."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        own = ("parent", "name") if isinstance(value, nn.Module) else ()
        return {name: getattr(value, name) for name in names if name not in own}
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    return dict(value) if isinstance(value, Mapping) else {}


def _places(value: Any, before: Place, seen: set[int]) -> Iterator[tuple[Place, int]]:
    """Yields the integers, those of a module with several places once."""
    if isinstance(value, nn.Module):
        if id(value) in seen:
            return
        seen.add(id(value))
    for step, part in _parts(value).items():
        if isinstance(part, int) and not isinstance(part, bool):
            yield (*before, step), part
        else:
            yield from _places(part, (*before, step), seen)


def replaced(module: nn.Module, values: dict[Place, int]) -> nn.Module | None:
    """Replaces integers, all at once; None if a class refuses them.

    Args:
      module: the module.
      values: the new integers.
    """
    try:
        return _rebuilt(module, values, {})
    except Exception:  # whatever the user's class raises
        return None


def _rebuilt(value: Any, values: dict[Place, int], made: dict[int, Any]) -> Any:
    """Replaces the integers in a value. Modules at several places remain one."""
    if () in values:
        return values[()]
    if id(value) in made:
        return made[id(value)]
    changed = {}
    for step, part in _parts(value).items():
        inside = {p[1:]: new for p, new in values.items() if p[0] == step}
        new = _rebuilt(part, inside, made)
        if new is not part:
            changed[step] = new
    result = _copied(value, changed) if changed else value
    if isinstance(value, nn.Module):
        made[id(value)] = result
    return result


def _copied(value: Any, changed: dict[Any, Any]) -> Any:
    if isinstance(value, nn.Module):
        return value.clone(**changed)
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **changed)
    if isinstance(value, Mapping):
        return type(value)({**value, **changed})
    items = [changed.get(i, item) for i, item in enumerate(value)]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def integers(module: nn.Module, before: Shapes, init: Init) -> list[Integer]:
    """Enlarges each integer among the fields, one at a time.

    Args:
      module: the module.
      before: shapes of its variables.
      init: computes the shapes for other fields.

    Returns:
      The first `MOST` integers with which axes get longer, those with most axes first.
    """
    found = []
    for place, value in list(_places(module, (), set()))[:MOST]:
        for step in STEPS:
            larger = replaced(module, {place: value + step})
            shapes = None if larger is None else init(larger)
            if shapes is not None and _are_alike(shapes, before):
                growth = _growth(before, shapes)
                found += [Integer(place, value, step, growth)] if growth else []
                break
    return sorted(found, key=lambda one: -len(one.growth))


def _are_alike(shapes: Shapes, before: Shapes) -> bool:
    """Returns whether two networks have the same leaves with as many axes."""
    return shapes.keys() == before.keys() and all(
        len(shape) == len(before[name]) for name, shape in shapes.items()
    )


def _growth(before: Shapes, larger: Shapes) -> dict[tuple[str, int], int]:
    return {
        (name, i): size - before[name][i]
        for name, shape in larger.items()
        for i, size in enumerate(shape)
        if size > before[name][i]
    }


def fit(
    module: nn.Module,
    found: list[Integer],
    before: Shapes,
    wanted: Shapes,
    init: Init,
) -> nn.Module:
    """Chooses values with which axes get as short as wanted.

    Args:
      module: the module.
      found: from `integers`.
      before: shapes of its variables.
      wanted: the wanted shapes, in which no axis is longer.
      init: computes the shapes for other fields.

    Returns:
      The module with new values, none of which makes an axis shorter than wanted. Not
      all axes need to be as short: where they are longer, no values were found.
    """
    values: dict[Place, int] = {}
    best, shapes = module, before
    for one in found:
        if shapes == wanted:
            break
        value = _value(one, before, wanted)
        smaller = replaced(module, values | {one.place: value})
        if value == one.value or smaller is None:
            continue
        after = init(smaller)
        if after is not None and _is_between(after, wanted, before):
            values[one.place], best, shapes = value, smaller, after
    return best


def _value(one: Integer, before: Shapes, wanted: Shapes) -> int:
    """Returns the value that the axis asks for that grows least, the most direct."""
    growth, (name, i) = min((growth, axis) for axis, growth in one.growth.items())
    change = (wanted[name][i] - before[name][i]) * one.step
    value = one.value + change // growth
    return one.value if change % growth or value < 1 else value


def _is_between(shapes: Shapes, wanted: Shapes, before: Shapes) -> bool:
    """Returns whether each axis is as long as wanted or longer, but not than before."""
    return _are_alike(shapes, before) and all(
        low <= size <= high
        for name, shape in shapes.items()
        for low, size, high in zip(wanted[name], shape, before[name], strict=True)
    )
