"""Makes the default config from the tables of fields, and starts a recipe."""

import functools
from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from jaxsparse.config import naming, registries
from jaxsparse.config.fields import FIELDS, SECTIONS


def default() -> ConfigDict:
    """Makes a config with the default value of every field.

    `fields` defines the fields. Those that registered entries add follow last in their
    sections.
    """
    c = ConfigDict()
    for name, section in SECTIONS.items():
        if name:
            c[name] = ConfigDict()
        part = c[name] if name else c
        for field, record in section.fields.items():
            part[field] = record.initial()
    _add_options(c)
    return c


def read_only_default() -> FrozenConfigDict:
    """Returns the default value of every field, in a config that cannot be changed.

    It is made once, for comparisons: `default` takes a millisecond, and checks of a
    config read default values many times.
    """
    return _frozen(repr(list(registries.options())))


@functools.lru_cache(maxsize=1)
def _frozen(options: str) -> FrozenConfigDict:
    """Makes the default config again when registered entries have other options."""
    del options
    return FrozenConfigDict(default())


def type_of(config: ConfigDict, name: str) -> tuple[type, bool]:
    """Returns the type of a field's values, and whether None is valid too.

    Args:
      config: a config that has the field.
      name: dotted name of the field, one of `fields` or an option of a registered
        entry.

    Examples:
      >>> type_of(default(), "sparse.drop_fraction")
      (<class 'float'>, True)
    """
    if name in FIELDS:
        return FIELDS[name].valid.type, FIELDS[name].valid.optional
    *sections, field = name.split(".")
    part: Any = config
    for section in sections:
        part = part[section]
    return part.get_type(field), False


def _add_options(c: ConfigDict) -> None:
    """Adds the fields of registered entries to a config.

    Raises:
      ValueError: if a field already exists, unless another entry added it with the same
        default value.
    """
    owners: dict[str, str] = {}
    for section, field, value, owner in registries.options():
        name = f"config.{section}.{field}"
        there = c[section].get(field, value)
        known = field in c[section] and name not in owners
        if known or type(there) is not type(value) or there != value:
            raise ValueError(
                f"options of {owner}: expected names of new fields, got {name}, a "
                f"field of {owners.get(name, 'every config')}; choose another name, or "
                "the same default value"
            )
        owners[name] = owner
        c[section][field] = value


def start(name: str, preset: str, *, also: tuple[str, ...] = ()) -> ConfigDict:
    """Starts a recipe: makes the default config, named after its config file.

    Args:
      name: name of the config file. If there is a preset, "_PRESET" is appended.
      preset: preset from `--config=FILE:PRESET`; "" for none.
      also: presets of the file in addition to "quick".

    Returns:
      The default config with its field `name` set.

    Raises:
      ValueError: if the file does not have the preset.
    """
    known = ("quick", *also)
    if preset and preset not in known:
        raise ValueError(
            f"--config: {name} has no preset {preset!r}; did you mean "
            f"{naming.nearest(preset, list(known))}?"
        )
    c = default()
    c.name = f"{name}_{preset}" if preset else name
    return c
