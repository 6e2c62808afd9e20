"""Recipes on a command line: config files and fields, checked without JAX."""

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


def to_file(recipe: str) -> str:
    """Finds a config file, in the form that `studies.runs.Run` has.

    Args:
      recipe: as for `resolve`.

    Returns:
      configs/FILE.py or configs/FILE.py:VARIANT for a file of the project's folder,
      else the same with an absolute path.

    Raises:
      ValueError: if there is no such file.
    """
    path, colon, variant = resolve(recipe).partition(":")
    file = Path(path).resolve()
    short = f"configs/{file.name}" if file.parent == FOLDER else str(file)
    return f"{short}{colon}{variant}"


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
    kind, optional = config.type_of(like, name)
    if text == "None" and optional:
        return
    if kind is bool:
        good = text.lower() in ("true", "t", "1", "false", "f", "0")
        wanted = "true or false"
    elif kind in _WORDS:
        good, wanted = _is_read(kind, text), _WORDS[kind]
        wanted += "" if value is None else f" like {value!r}"
    else:
        return
    wanted += ", or None" if optional else ""
    if not good:
        raise ValueError(f"config.{name}: expected {wanted}, got {text!r}")


def _is_read(kind: type, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


class _Flag(NamedTuple):
    """One argument of a command line, as far as it concerns the config.

    Attributes:
      text: the argument as it was given.
      field: dotted name of a config field; None for other arguments.
      value: what the argument gives; None if nothing follows an equals sign.
      is_file: whether the argument names the config file.
    """

    text: str
    field: str | None = None
    value: str | None = None
    is_file: bool = False


def arguments(argv: Sequence[str]) -> list[str]:
    """Checks what a command line says of the config, and completes the file's path.

    Args:
      argv: arguments of the command line, with or without the name of the program.

    Returns:
      The command line with the whole path of the config file.

    Raises:
      ValueError: if the file or a field does not exist, or a value is missing or does
        not have the type of its field.
    """
    flags = [_parse(argument) for argument in _joined(argv)]
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
    if argument.startswith(off := f"--{_OFF}config."):
        return _Flag(argument, argument.removeprefix(off))
    match = _FLAG.fullmatch(argument)
    if match is None:
        return _Flag(argument)
    return _Flag(argument, match["field"], match["value"], match["field"] is None)


def _with_all_fields(flags: Sequence[_Flag]) -> ConfigDict:
    """Makes a config that has every field which the command line may name.

    A config file may register methods, scores, networks and datasets with options of
    their own. Only if the command line names a field that no built-in config has, the
    file is executed here to find these options. What it registered is removed again,
    because the flags library executes the file once more.

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
    registries = (config.SCORES, config.METHODS, config.MODELS, config.DATASETS)
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


def _joined(argv: Sequence[str]) -> list[str]:
    """Turns "--config FILE" into "--config=FILE"."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1] in ("--config", "-config"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined
