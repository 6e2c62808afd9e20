"""Checks the config file and the config fields of a command line, without JAX."""

import difflib
import re
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxsparse import config

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "configs"
_FLAG = re.compile(r"--?config(?:\.(?P<field>[\w.]+))?(?:=(?P<value>.*))?", re.DOTALL)
TYPES = {int: "a whole number", float: "a number"}
TRUE = ("true", "t", "1")
_FALSE = "no"  # prefix of a boolean flag that is false


def resolve(recipe: str) -> str:
    """Finds a config file.

    Args:
      recipe: FILE or FILE:PRESET. FILE is relative to the current folder or to the
        project's. A file of configs/ needs no folder and no ".py".

    Returns:
      The recipe with the path of an existing file.

    Raises:
      ValueError: if there is no such file, with the nearest names.
    """
    name, colon, preset = recipe.partition(":")
    paths = (Path(name), ROOT / name, ROOT / f"{name}.py", FOLDER / f"{name}.py")
    for path in (*paths, FOLDER / name):
        if name and path.is_file():
            return f"{path}{colon}{preset}"
    known = {path.stem: path for path in FOLDER.glob("*.py")}
    close = difflib.get_close_matches(Path(name).stem, list(known), n=3, cutoff=0.5)
    near = " or ".join(f"configs/{stem}.py" for stem in close) or "a file of configs/"
    raise ValueError(f"--config: no file {name!r}; did you mean {near}?")


def to_file(recipe: str) -> str:
    """Finds a config file, and shortens its path as in `studies.runs.Run.config`.

    Args:
      recipe: FILE or FILE:PRESET, in one of the forms that `resolve` accepts.

    Returns:
      configs/FILE.py or configs/FILE.py:PRESET for a file of the project, otherwise
      the recipe with an absolute path.

    Raises:
      ValueError: if there is no such file.
    """
    path, colon, preset = resolve(recipe).partition(":")
    file = Path(path).resolve()
    short = f"configs/{file.name}" if file.parent == FOLDER else str(file)
    return f"{short}{colon}{preset}"


def check_field(name: str, like: ConfigDict | None = None) -> None:
    """Checks that a config field exists.

    Args:
      name: dotted name of the field, without "config".
      like: a config with all fields; None for `config.default()`.

    Raises:
      ValueError: if it does not exist, with the nearest field, or if it is a section,
        with its first fields.
    """
    known = list(config.flatten(config.default() if like is None else like))
    if name in known:
        return
    inside = [field for field in known if field.startswith(f"{name}.")]
    if inside:
        first = ", ".join(f"config.{field}" for field in inside[:3])
        raise ValueError(
            f"config.{name}: expected a field, got a section of fields; its fields are "
            f"{first}{', ...' if len(inside) > 3 else ''}"
        )
    near = config.nearest_field(name, known)
    raise ValueError(f"config.{name}: no such field; did you mean {near}?")


def check_value(name: str, text: str, like: ConfigDict) -> None:
    """Checks that a text is a value of a field's type.

    The flags library would check it too, with a less clear message.

    Args:
      name: dotted name of the field.
      text: the value on the command line.
      like: a config that has the field.

    Raises:
      ValueError: if it is not, with the expected type.
    """
    value: Any = like
    for part in name.split("."):
        value = value[part]
    kind, optional = config.type_of(like, name)
    if text == "None" and optional:
        return
    if kind is bool:
        valid = text.lower() in (*TRUE, "false", "f", "0")
        expected = "true or false"
    elif kind in TYPES:
        valid, expected = _can_parse(kind, text), TYPES[kind]
        expected += "" if value is None else f" like {value!r}"
    else:
        return
    expected += ", or None" if optional else ""
    if not valid:
        raise ValueError(f"config.{name}: expected {expected}, got {text!r}")


def _can_parse(kind: type, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


class _Flag(NamedTuple):
    """An argument of a command line.

    Attributes:
      text: the whole argument.
      field: dotted name of the config field that it sets; None for other arguments.
      value: the text after the equals sign; None without one.
      is_file: whether it is the flag of the config file.
    """

    text: str
    field: str | None = None
    value: str | None = None
    is_file: bool = False


def arguments(argv: Sequence[str]) -> list[str]:
    """Checks the config file and fields of a command line.

    Args:
      argv: the command line, with or without the name of the program.

    Returns:
      The command line with the full path of the config file.

    Raises:
      ValueError: if the file or a field does not exist, if the name of the file is
        missing, or if a value does not have the type of its field.
    """
    flags = [_parse(argument) for argument in _join_values(argv)]
    like = _with_all_fields(flags)
    for flag in flags:
        if flag.is_file and not flag.value:
            raise ValueError("--config: missing; give one as --config=lth_digits")
        if flag.field is not None:
            check_field(flag.field, like)
            if flag.value is not None:
                check_value(flag.field, flag.value, like)
    return [
        f"--config={resolve(flag.value)}" if flag.value and flag.is_file else flag.text
        for flag in flags
    ]


def _parse(argument: str) -> _Flag:
    if argument.startswith(off := f"--{_FALSE}config."):
        return _Flag(argument, argument.removeprefix(off))
    match = _FLAG.fullmatch(argument)
    if match is None:
        return _Flag(argument)
    return _Flag(argument, match["field"], match["value"], match["field"] is None)


def _with_all_fields(flags: Sequence[_Flag]) -> ConfigDict:
    """Makes a config with every field that the command line may set.

    A config file may register methods, scores, networks and datasets with options of
    their own. If the command line sets a field that no built-in config has, the file is
    executed here to find these options. Its registrations are then removed, because the
    flags library executes the file again.

    Args:
      flags: the parsed command line.

    Raises:
      ValueError: if the file does not exist or fails.
    """
    plain = config.default()
    files = [flag.value for flag in flags if flag.is_file and flag.value]
    fields = {flag.field for flag in flags if flag.field is not None}
    if not files or fields <= config.flatten(plain).keys():
        return plain
    registries = config.REGISTRIES
    before = [{spec.name for spec in registry.own()} for registry in registries]
    try:
        runpy.run_path(resolve(files[-1]).partition(":")[0])
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


def _join_values(argv: Sequence[str]) -> list[str]:
    """Joins "--config" "FILE" to "--config=FILE"."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1] in ("--config", "-config"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined
