"""The runs of a grid: recipes × values of fields × seeds; needs no JAX."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import recipes as recipe_files
from experiments.studies.runs import Run, read
from jaxsparse import config
from jaxsparse.data import names as data_names

_SEEDS = ("replicates", "seeds.first")
PART = "seeds"  # in the name of a run, before which it has of many


class Point(NamedTuple):
    """What runs of a grid have in common but seeds.

    Attributes:
      recipe: FILE or FILE:VARIANT.
      values: of the varied fields, as they are given on a command line.
      runs: one, or several of some seeds each.
    """

    recipe: str
    values: dict[str, str]
    runs: list[Run]


def make(
    recipes: Sequence[str],
    varied: Sequence[str],
    fixed: Sequence[str],
    *,
    seeds: int,
    at_once: int = 0,
    dense: bool = False,
) -> list[Point]:
    """Lists the points of a grid, each a run of all seeds, or several of some.

    Args:
      recipes: each FILE or FILE:VARIANT.
      varied: each FIELD=VALUE,VALUE...; every combination of values is a point.
      fixed: each FIELD=VALUE, of all runs.
      seeds: replicates of every point.
      at_once: how many of them one run trains at most; 0 for all.
      dense: whether to train each recipe without sparsity too, as the reference;
        recipes that are the same without it share one.

    Raises:
      ValueError: if something is not of these forms, a recipe or field is unknown, a
        value is not valid, or two runs would have the same name; naming it.
    """
    if not recipes or seeds < 1 or at_once < 0:
        raise ValueError(
            f"--config, --seeds, --at_once: came {list(recipes)}, {seeds}, {at_once}; "
            "wanted one recipe or more, 1 seed or more, and 0 or more at once"
        )
    axes = [_split(words, "--vary", "FIELD=VALUE,VALUE") for words in varied]
    common = [_split(words, "--set", "FIELD=VALUE") for words in fixed]
    _check_fields([name for name, _ in (*axes, *common)])
    recipes = [recipe_files.to_file(recipe) for recipe in recipes]
    choices = [[(name, v) for v in values.split(",")] for name, values in axes]
    points = []
    for recipe, *chosen in itertools.product(recipes, *choices):
        fields = dict(chosen)
        given = _parsed(recipe, dict(common) | fields)
        points.append(_point(recipe, fields, given, seeds=seeds, size=at_once or seeds))
    if dense:
        points += _references(points, seeds=seeds, size=at_once or seeds)
    _check(points)
    return points


def check_data(points: Sequence[Point], data_dir: str) -> None:
    """Refuses names of datasets that look misspelt.

    Args:
      points: of a grid.
      data_dir: folder of datasets; "" for what the recipes say.

    Raises:
      ValueError: naming the nearest names.
    """
    for run in (run for point in points for run in point.runs):
        data = read(run).data
        data_names.check(data.name, data_dir=data_dir or data.dir or None)


def _point(
    recipe: str,
    fields: dict[str, str],
    given: dict[str, Any],
    *,
    seeds: int,
    size: int,
) -> Point:
    """Makes a point of runs of `size` seeds each, with the given overrides."""
    runs = []
    for first in range(0, seeds, size):
        mine = {"replicates": min(size, seeds - first)}
        if size < seeds:
            mine["seeds.first"] = first
        runs.append(Run("-".join(_name(recipe, fields, mine)), recipe, given | mine))
    return Point(recipe, fields, runs)


def _references(points: Sequence[Point], *, seeds: int, size: int) -> list[Point]:
    """Makes the points of dense training that these are compared with."""
    usual = config.flatten(config.default())
    found: dict[str, Point] = {}
    for point in points:
        c = read(Run("", point.recipe, {}))
        undone = {
            name: tuple(usual[name]) if isinstance(usual[name], list) else usual[name]
            for name, value in config.flatten(c).items()
            if name.startswith("sparse.") and value != usual[name]
        }
        if not undone:  # it is dense, or a lottery that begins dense
            continue
        given = {
            name: value
            for name, value in point.runs[0].overrides.items()
            if name not in _SEEDS and not name.startswith("sparse.")
        }
        fields = {k: v for k, v in point.values.items() if not k.startswith("sparse.")}
        fields = {"sparse.method": "none"} | fields
        made = _point(point.recipe, fields, given | undone, seeds=seeds, size=size)
        found.setdefault(config.digest(_without_name(read(made.runs[0]))), made)
    return list(found.values())


def _without_name(c: ConfigDict) -> dict[str, Any]:
    return {name: value for name, value in c.to_dict().items() if name != "name"}


def _check_fields(names: Sequence[str]) -> None:
    """Refuses fields that are given twice, or by a flag of their own."""
    for name in names:
        if names.count(name) > 1 or name in _SEEDS:
            raise ValueError(
                f"--vary, --set: came {name!r}, twice or beside --seeds; wanted each "
                "field once, and the number of replicates by --seeds and --at_once"
            )


def _split(words: str, flag: str, wanted: str) -> tuple[str, str]:
    name, equals, values = words.partition("=")
    if not (name and equals and values):
        raise ValueError(f"{flag}: came {words!r}; wanted {wanted}")
    return name, values


def _name(recipe: str, fields: dict[str, str], seeds: dict[str, Any]) -> list[str]:
    path, _, variant = recipe.partition(":")
    parts = [f"{Path(path).stem}_{variant}" if variant else Path(path).stem]
    parts += [f"{name.rpartition('.')[2]}_{v}" for name, v in fields.items()]
    if "seeds.first" in seeds:
        first = seeds["seeds.first"]
        parts.append(f"{PART}_{first}_to_{first + seeds['replicates'] - 1}")
    return ["".join(c if c.isalnum() or c in "._" else "_" for c in p) for p in parts]


def _parsed(recipe: str, fields: dict[str, str]) -> dict[str, Any]:
    """Gives values the types that a recipe's fields have."""
    c = read(Run("", recipe, {}))
    for name in fields:
        recipe_files.check_field(name)
    return {name: _as(c, value, name) for name, value in fields.items()}


def _as(like: ConfigDict, value: str, name: str) -> Any:
    kind, optional = config.type_of(like, name)
    if value == "None" and optional:
        return None
    if kind is bool:
        if value not in ("true", "false"):
            raise ValueError(f"config.{name}: came {value!r}; wanted true or false")
        return value == "true"
    if kind is str:
        return value
    if kind in (int, float):
        try:
            return kind(value)
        except ValueError as error:
            raise ValueError(
                f"config.{name}: came {value!r}; wanted a value of type {kind.__name__}"
            ) from error
    raise ValueError(
        f"config.{name}: expected a field that holds a number, text, or true or false, "
        f"got {value!r} for one that holds a {kind.__name__}; put it into a recipe"
    )


def _check(points: Sequence[Point]) -> None:
    """Refuses what no run could train with, before the first is launched."""
    names: dict[str, Run] = {}
    for run in (run for point in points for run in point.runs):
        if run.name in names:
            raise ValueError(
                f"--vary: two runs would be called {run.name!r}; wanted different "
                "recipes and values"
            )
        names[run.name] = run
        c = read(run)
        try:
            config.check_names(c)
            config.validate(c)
        except ValueError as error:
            raise ValueError(f"{run.name}: {error}") from error
