"""Validation of a config: its fields, their values, and combinations of fields."""

from typing import Any

from ml_collections import ConfigDict

from jaxsparse.config import naming, schema
from jaxsparse.config.combinations import check_combinations
from jaxsparse.config.fields import FIELDS


def validate(config: ConfigDict) -> None:
    """Checks the name and the value of every field, and combinations of fields.

    This compiles nothing and reads no files.

    Args:
      config: a config with the fields of `default()`.

    Raises:
      ValueError: if a field is invalid; the message gives the first such field, its
        value and the valid values.
    """
    default = schema.default()
    _check_fields(config, default, "", default)
    check_combinations(config)


def _names(schema: ConfigDict, prefix: str = "") -> list[str]:
    """Returns the dotted names of all fields."""
    found = []
    for name, value in schema.items():
        inside = isinstance(value, ConfigDict)
        found += _names(value, f"{prefix}{name}.") if inside else [prefix + name]
    return found


def _check_fields(
    config: ConfigDict, like: ConfigDict, prefix: str, top: ConfigDict
) -> None:
    """Checks the names and values of all fields of a section.

    Args:
      config: the section.
      like: the same section of the default config.
      prefix: name of the section and a dot; "" for the whole config.
      top: the default config.
    """
    for name in config:
        if name not in like:
            raise ValueError(
                f"config.{prefix}{name}: expected a config field, got an unknown name; "
                f"did you mean {naming.nearest_field(prefix + name, _names(top))}?"
            )
    for name, plain in like.items():
        if name not in config:
            raise ValueError(
                f"config.{prefix}{name}: expected a value, got none; start from "
                "jaxsparse.config.default()"
            )
        if not isinstance(plain, ConfigDict):
            _check_value(f"{prefix}{name}", config[name], plain)
        elif isinstance(config[name], ConfigDict):
            _check_fields(config[name], plain, f"{prefix}{name}.", top)
        else:
            raise ValueError(
                f"config.{prefix}{name}: expected a section with the fields "
                f"{list(plain)}, got {config[name]!r}"
            )


def _check_value(name: str, value: Any, plain: Any) -> None:
    """Checks the value of a field.

    Args:
      name: dotted name of the field.
      value: its value.
      plain: its default value, whose type the options of registered entries must have.
    """
    if name in FIELDS:
        valid = FIELDS[name].valid
        if not valid.holds(value):
            raise ValueError(f"config.{name}: expected {valid.words}, got {value!r}")
    elif type(value) is not type(plain):
        raise ValueError(
            f"config.{name}: expected a value of type {type(plain).__name__}, such as "
            f"{plain!r}, got {value!r}"
        )
