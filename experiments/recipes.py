"""Recipes on a command line: config files and fields, checked without JAX."""

import difflib
import re
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxsparse import config

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "configs"
_FLAG = re.compile(r"--?config(?:\.(?P<field>[\w.]+))?(?:=(?P<value>.*))?", re.DOTALL)
_WORDS = {int: "a whole number", float: "a number"}
_OFF = "no"  # before the name of a flag that is false


def resolve(recipe: str) -> str:
    """Finds the config file that is meant.

    Args:
      recipe: FILE or FILE:VARIANT. The file may be relative to here or to the project,
        and one in configs/ may be called by its name alone.

    Returns:
      The same with a path to a file.

    Raises:
      ValueError: if there is no such file, naming the nearest.
    """
    name, colon, variant = recipe.partition(":")
    tried = (Path(name), ROOT / name, ROOT / f"{name}.py", FOLDER / f"{name}.py")
    for path in (*tried, FOLDER / name):
        if name and path.is_file():
            return f"{path}{colon}{variant}"
    known = {path.stem: path for path in FOLDER.glob("*.py")}
    close = difflib.get_close_matches(Path(name).stem, list(known), n=3, cutoff=0.5)
    near = " or ".join(f"configs/{stem}.py" for stem in close) or "a file of configs/"
    raise ValueError(f"--config: no file {name!r}; did you mean {near}?")


def in_project(recipe: str) -> str:
    """Finds a config file of the project's folder of them, where studies look.

    Args:
      recipe: as for `resolve`.

    Returns:
      configs/FILE.py or configs/FILE.py:VARIANT.

    Raises:
      ValueError: if there is no such file, or it is elsewhere.
    """
    path, colon, variant = resolve(recipe).partition(":")
    if Path(path).resolve().parent != FOLDER:
        raise ValueError(f"--config: expected a file of {FOLDER}, got {path}; copy it")
    return f"configs/{Path(path).name}{colon}{variant}"


def check_field(name: str, like: ConfigDict | None = None) -> None:
    """Refuses a field that no config has.

    Args:
      name: dotted, without "config".
      like: a config with all fields that there are; None for `config.default()`.

    Raises:
      ValueError: naming the nearest field, or fields of the section that it is.
    """
    known = list(config.flatten(config.default() if like is None else like))
    if name in known:
        return
    inside = [field for field in known if field.startswith(f"{name}.")]
    if inside:
        some = ", ".join(f"config.{field}" for field in inside[:3])
        raise ValueError(
            f"config.{name}: expected a field, got a section of fields; its fields are "
            f"{some}{', ...' if len(inside) > 3 else ''}"
        )
    near = config.nearest_field(name, known)
    raise ValueError(f"config.{name}: no such field; did you mean {near}?")


def check_value(name: str, text: str, like: ConfigDict) -> None:
    """Refuses what is no value of a field's type, before the flags library does.

    Args:
      name: dotted name of a field.
      text: as on a command line.
      like: a config that has the field.

    Raises:
      ValueError: naming the field and the type.
    """
    value: Any = like
    for part in name.split("."):
        value = value[part]
    if isinstance(value, bool):
        good = text.lower() in ("true", "t", "1", "false", "f", "0")
        wanted = "true or false"
    elif isinstance(value, int | float):
        kind = type(value)
        good, wanted = _is_read(kind, text), f"{_WORDS[kind]} like {value!r}"
    else:
        return
    if not good:
        raise ValueError(f"config.{name}: expected {wanted}, got {text!r}")


def _is_read(kind: type, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def arguments(argv: Sequence[str]) -> list[str]:
    """Checks and expands what a command line says of the config.

    Returns:
      The command line with the whole path of the config file.

    Raises:
      ValueError: for a file or a field that there is not, or a value that is missing.
    """
    joined = _joined(argv)
    found, like = [], _with_all_fields(joined)
    for argument in joined:
        match = _FLAG.fullmatch(argument)
        if match and match["field"]:
            check_field(match["field"], like)
            if match["value"] is not None:
                check_value(match["field"], match["value"], like)
        elif match and not match["value"]:
            raise ValueError("--config: missing; give one as --config=lth_digits")
        elif match:
            argument = f"--config={resolve(match['value'])}"
        elif argument.startswith(off := f"--{_OFF}config."):
            check_field(argument.removeprefix(off), like)
        found.append(argument)
    return found


def _with_all_fields(arguments: Sequence[str]) -> ConfigDict:
    """Makes a config of every field that may be given.

    Only where one is given that no config has, the config file is executed here, for
    the options of what it registers. They are taken out again: the flags library
    executes the file once more.

    Raises:
      ValueError: if there is no such file, or it fails.
    """
    plain = config.default()
    matches = [match for a in arguments if (match := _FLAG.fullmatch(a))]
    recipes = [m["value"] for m in matches if not m["field"] and m["value"]]
    off = f"--{_OFF}config."
    fields = {m["field"] for m in matches if m["field"]}
    fields |= {a.removeprefix(off) for a in arguments if a.startswith(off)}
    if not recipes or fields <= config.flatten(plain).keys():
        return plain
    registries = (config.SCORES, config.METHODS, config.MODELS, config.DATASETS)
    before = [{spec.name for spec in registry.own()} for registry in registries]
    try:
        runpy.run_path(resolve(recipes[-1]).partition(":")[0])
        return config.default()
    except Exception as error:  # a config is a program, and may fail in any way
        raise ValueError(
            f"--config: the file cannot be run: {type(error).__name__}: {error}"
        ) from error
    finally:
        for registry, names in zip(registries, before, strict=True):
            for spec in registry.own():
                if spec.name not in names:
                    registry.remove(spec.name)


def _joined(argv: Sequence[str]) -> list[str]:
    """Turns "--config FILE" into "--config=FILE"."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1] in ("--config", "-config"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined
