"""The runs of a grid: recipes × values of config fields × seeds, without JAX."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import config_arguments
from experiments.studies.runs import Run, read
from jaxsparse import config
from jaxsparse.data import names as data_names

_SEED_FIELDS = ("replicates", "seeds.first")


class Point(NamedTuple):
    """A combination of a recipe and values.

    Attributes:
      recipe: FILE or FILE:PRESET.
      values: the varied fields, with values as on the command line.
      runs: one run of all seeds, or several runs of some seeds each.
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
    seeds_per_run: int = 0,
    dense: bool = False,
) -> list[Point]:
    """Makes the points of a grid.

    Args:
      recipes: recipes, each FILE or FILE:PRESET.
      varied: varied fields, each FIELD=VALUE,VALUE,...; every combination of recipe and
        values is a point.
      fixed: other fields of all runs, each FIELD=VALUE.
      seeds: number of seeds of every point.
      seeds_per_run: largest number of seeds that one run trains; 0 for all.
      dense: whether to add a dense reference for each recipe. Recipes that differ in
        their sparsity only share one.

    Raises:
      ValueError: if an argument does not have its form, a recipe or field is unknown, a
        value is invalid, or two runs would have the same name.
    """
    if not recipes:
        raise ValueError("--config: missing; give one or more recipes")
    for flag, value, least in (
        ("seeds", seeds, 1),
        ("seeds_per_run", seeds_per_run, 0),
    ):
        if value < least:
            raise ValueError(f"--{flag}: expected {least} or more, got {value}")
    axes = [_split(text, "--vary", "FIELD=VALUE,VALUE") for text in varied]
    common = [_split(text, "--set", "FIELD=VALUE") for text in fixed]
    _check_fields([name for name, _ in (*axes, *common)])
    recipes = [config_arguments.to_file(recipe) for recipe in recipes]
    choices = [[(name, v) for v in values.split(",")] for name, values in axes]
    size = seeds_per_run or seeds
    points = []
    for recipe, *chosen in itertools.product(recipes, *choices):
        values = dict(chosen)
        fields = _parse_fields(recipe, dict(common) | values)
        points.append(_point(recipe, values, fields, seeds=seeds, size=size))
    if dense:
        points += _references(points, seeds=seeds, size=size)
    _check(points)
    return points


def check_data(points: Sequence[Point], data_dir: str) -> None:
    """Checks the names of the datasets.

    Args:
      points: the points of the grid.
      data_dir: folder of datasets; "" for the folders that the recipes name.

    Raises:
      ValueError: if a name is unknown, with the nearest names.
    """
    for run in (run for point in points for run in point.runs):
        data = read(run).data
        data_names.check(data.name, data_dir=data_dir or data.dir or None)


def _point(
    recipe: str,
    values: dict[str, str],
    fields: dict[str, Any],
    *,
    seeds: int,
    size: int,
) -> Point:
    """Makes a point from runs of at most `size` seeds with the given config fields."""
    runs = []
    for first in range(0, seeds, size):
        own = {"replicates": min(size, seeds - first)}
        if size < seeds:
            own["seeds.first"] = first
        runs.append(Run("-".join(_name(recipe, values, own)), recipe, fields | own))
    return Point(recipe, values, runs)


def _references(points: Sequence[Point], *, seeds: int, size: int) -> list[Point]:
    """Makes the points of dense training that the given points are compared with."""
    defaults = config.flatten(config.default())
    found: dict[str, Point] = {}
    for point in points:
        c = read(Run("", point.recipe, {}))
        resets = {
            name: tuple(d) if isinstance(d := defaults[name], list) else d
            for name, value in config.flatten(c).items()
            if name.startswith("sparse.") and value != defaults[name]
        }
        if not resets:  # dense training, or a lottery, whose level 0 is dense
            continue
        fields = {
            name: value
            for name, value in point.runs[0].overrides.items()
            if name not in _SEED_FIELDS and not name.startswith("sparse.")
        }
        values = {k: v for k, v in point.values.items() if not k.startswith("sparse.")}
        values = {"sparse.method": "none"} | values
        made = _point(point.recipe, values, fields | resets, seeds=seeds, size=size)
        found.setdefault(config.digest(_without_name(read(made.runs[0]))), made)
    return list(found.values())


def _without_name(c: ConfigDict) -> dict[str, Any]:
    return {name: value for name, value in c.to_dict().items() if name != "name"}


def _check_fields(names: Sequence[str]) -> None:
    """Checks that no field is given twice, or has a flag of its own."""
    for name in names:
        if name in _SEED_FIELDS:
            raise ValueError(
                f"--vary, --set: expected no {name!r}; give the number of seeds by "
                "--seeds and --seeds_per_run"
            )
        if names.count(name) > 1:
            raise ValueError(
                f"--vary, --set: expected each field once, got {name!r} twice; remove "
                "one of them"
            )


def _split(text: str, flag: str, form: str) -> tuple[str, str]:
    name, equals, values = text.partition("=")
    if not (name and equals and values):
        raise ValueError(f"{flag}: expected {form}, got {text!r}")
    return name, values


def _name(recipe: str, values: dict[str, str], seeds: dict[str, Any]) -> list[str]:
    path, _, preset = recipe.partition(":")
    parts = [f"{Path(path).stem}_{preset}" if preset else Path(path).stem]
    parts += [f"{name.rpartition('.')[2]}_{v}" for name, v in values.items()]
    if "seeds.first" in seeds:
        first = seeds["seeds.first"]
        parts.append(f"seeds_{first}_to_{first + seeds['replicates'] - 1}")
    return ["".join(c if c.isalnum() or c in "._" else "_" for c in p) for p in parts]


def _parse_fields(recipe: str, fields: dict[str, str]) -> dict[str, Any]:
    """Converts values to the types of the recipe's fields."""
    c = read(Run("", recipe, {}))
    for name in fields:
        config_arguments.check_field(name)
        config_arguments.check_value(name, fields[name], c)
    return {name: _parse(c, value, name) for name, value in fields.items()}


def _parse(like: ConfigDict, value: str, name: str) -> Any:
    kind, optional = config.type_of(like, name)
    if value == "None" and optional:
        return None
    if kind is bool:
        return value.lower() in config_arguments.TRUE
    if kind is str or kind in config_arguments.TYPES:
        return kind(value)
    raise ValueError(
        f"config.{name}: expected a field that is a number, a text, or true or false, "
        f"got one of type {kind.__name__}; set it in a recipe"
    )


def _check(points: Sequence[Point]) -> None:
    """Checks names and configs of all runs, before the first is started."""
    names = set()
    for run in (run for point in points for run in point.runs):
        if run.name in names:
            raise ValueError(
                f"--vary: expected runs of different names, got {run.name!r} twice; "
                "give different recipes and values"
            )
        names.add(run.name)
        c = read(run)
        try:
            config.check_names(c)
            config.validate(c)
        except ValueError as error:
            raise ValueError(f"{run.name}: {error}") from error
