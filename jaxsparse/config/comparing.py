"""Comparison, hashing and reading of configs: when two are the same experiment."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxsparse.config import renames, schema
from jaxsparse.config.fields import FIELDS

# A config, or the nested dicts read from its JSON file.
Fields = ConfigDict | Mapping[str, Any]


def flatten(config: Fields, prefix: str = "") -> dict[str, Any]:
    """Flattens a config to a dict from dotted names to values.

    Args:
      config: a config, or the nested dicts read from its JSON file.
      prefix: prefix of all names, such as "data.".

    Returns:
      Values by dotted name. Tuples become lists, as in JSON, so that configs can be
      compared with those read from files.
    """
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = _as_in_json(value)
    return flat


def _as_in_json(value: Any) -> Any:
    """Returns a value as it is read from JSON; most are scalars, which stay."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    return json.loads(json.dumps(value))


def scientific(config: Fields) -> dict[str, Any]:
    """Returns the fields that results depend on, by dotted name.

    Args:
      config: a config, or the nested dicts read from its JSON file.
    """
    return {
        name: value
        for name, value in flatten(config).items()
        if not _is_operational(name)
    }


def _is_operational(name: str) -> bool:
    """Returns whether results do not depend on a field."""
    if name in FIELDS:
        return FIELDS[name].operational
    return name.startswith("run.")  # a field of an older version


def _may_grow(name: str) -> bool:
    """Returns whether a field may increase when a run continues."""
    return name in FIELDS and FIELDS[name].may_grow


def digest(config: Fields) -> str:
    """Hashes the fields that results depend on, except the number of levels.

    Fields at their default values are left out, and renamed fields and values have
    their first names, so that neither changes the names of existing run directories.

    Args:
      config: a config, or the nested dicts read from its JSON file.

    Returns:
      The first 10 hexadecimal digits of a SHA-256.
    """
    defaults = scientific(schema.read_only_default())
    fields = {
        renames.old_name(name): renames.old_value(name, value)
        for name, value in scientific(config).items()
        if not _may_grow(name) and value != defaults.get(name)
    }
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def differences(old: Fields, new: Fields) -> Iterator[tuple[str, Any, Any]]:
    """Yields the fields in which two configs differ, if results depend on them.

    An increased number of levels is not a difference. Neither is a field that the old
    config does not have if the new one has its default value.

    Args:
      old: a config, or the nested dicts read from its JSON file.
      new: the config to compare with it.

    Yields:
      Dotted name, old value and new value of each field that differs, sorted by name.
    """
    before, now = scientific(old), scientific(new)
    defaults = scientific(schema.read_only_default())
    for name in sorted(before.keys() | now.keys()):
        a = before.get(name, defaults.get(name, "absent"))
        b = now.get(name, "absent")
        grew = _may_grow(name) and type(a) is type(b) is int and b > a
        if a != b and not grew:
            yield name, a, b


def from_json(fields: Fields) -> ConfigDict:
    """Makes a config from the content of a run's config.json.

    Args:
      fields: content of the file. Missing fields get their default values; fields that
        no longer exist are left out.

    Returns:
      The config, with tuples in place of JSON's lists.
    """
    c = schema.default()
    known, found = c.to_dict(), {}
    for name, value in flatten(fields).items():
        *sections, field = name.split(".")
        part: Any = known
        for section in sections:
            part = part.get(section, {}) if isinstance(part, Mapping) else {}
        if isinstance(part, Mapping) and field in part:
            found[name] = _as_tuples(value)
    c.update_from_flattened_dict(found)
    return c


def _as_tuples(value: Any) -> Any:
    """Converts nested lists, as in JSON, to tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
