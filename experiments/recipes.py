"""Recipes on a command line: config files and fields, checked without JAX."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def check_field(name: str) -> None:
    """Refuses a field that no config has.

    Args:
      name: dotted, without "config".

    Raises:
      ValueError: naming the nearest field, or fields of the section that it is.
    """
    known = list(config.flatten(config.default()))
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


def check_value(name: str, text: str) -> None:
    """Refuses what is no value of a field's type, before the flags library does.

    Args:
      name: dotted name of a field.
      text: as on a command line.

    Raises:
      ValueError: naming the field and the type.
    """
    like = _default(name)
    if isinstance(like, bool):
        good = text.lower() in ("true", "t", "1", "false", "f", "0")
        wanted = "true or false"
    elif isinstance(like, int | float):
        good, wanted = _is_read(type(like), text), f"{_WORDS[type(like)]} like {like!r}"
    else:
        return
    if not good:
        raise ValueError(f"config.{name}: expected {wanted}, got {text!r}")


def _default(name: str) -> Any:
    value: Any = config.default()
    for part in name.split("."):
        value = value[part]
    return value


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
    found: list[str] = []
    for argument in _joined(argv):
        match = _FLAG.fullmatch(argument)
        if match and match["field"]:
            check_field(match["field"])
            if match["value"] is not None:
                check_value(match["field"], match["value"])
        elif match and not match["value"]:
            raise ValueError("--config: missing; give one as --config=lth_digits")
        elif match:
            argument = f"--config={resolve(match['value'])}"
        elif argument.startswith(f"--{_OFF}config."):
            check_field(argument.removeprefix(f"--{_OFF}config."))
        found.append(argument)
    return found


def _joined(argv: Sequence[str]) -> list[str]:
    """Turns "--config FILE" into "--config=FILE"."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1] in ("--config", "-config"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined
