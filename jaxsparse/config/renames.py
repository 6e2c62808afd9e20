"""Config fields and values of older versions, to read the files of older runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsparse import metrics_log
from jaxsparse.config.fields import FIELDS
from jaxsparse.old_names import CONFIG_FIELDS, CONFIG_VALUES

_OLD_NAMES = {new: old for old, new in CONFIG_FIELDS.items()}

# Older versions used these in place of None.
_NONE = ("", -1, [], ())


def read(path: Path) -> dict[str, Any]:
    """Reads a run's config.json, with the present names and values of its fields.

    Args:
      path: the file.

    Returns:
      The fields, nested by section.

    Raises:
      ValueError: if the file does not hold a JSON object; the message names it.
      OSError: if it does not exist or cannot be read.
    """
    return with_new_names(metrics_log.read_object(path))


def with_new_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Translates the fields and values of older versions.

    Args:
      fields: nested fields; sections are mappings. Present names and values stay as
        they are.

    Returns:
      A copy with present names and values.

    Examples:
      >>> with_new_names({"data": {"order": "fresh"}, "sparse": {"begin": ""}})
      {'data': {'reshuffle_each_level': True}, 'sparse': {'begin_step': None}}
    """
    found: dict[str, Any] = {}
    for section, value in fields.items():
        if not isinstance(value, Mapping):
            found[section] = value
            continue
        for name, item in value.items():
            full = CONFIG_FIELDS.get(f"{section}.{name}", f"{section}.{name}")
            new_section, _, new = full.partition(".")
            part = found.setdefault(new_section, {})
            part.setdefault(new, new_value(full, item))
    return found


def new_value(field: str, value: Any) -> Any:
    """Translates the value that a field had in an older version.

    Args:
      field: present dotted name of the field.
      value: its value, an old or a present one.

    Examples:
      >>> new_value("data.normalize", "unit"), new_value("sparse.drop_fraction", -1.0)
      ('scale', None)
      >>> new_value("pretraining.batch_size", 0)
    """
    if field in FIELDS and FIELDS[field].valid.optional and value in _NONE:
        return None
    known = CONFIG_VALUES.get(field, {})
    return known.get(value, value) if isinstance(value, str | int) else value


def old_value(field: str, value: Any) -> Any:
    """Returns the first form that a value had, by which run directories are hashed.

    Args:
      field: present dotted name of the field.
      value: its present value.

    Examples:
      >>> old_value("data.normalize", "scale"), old_value("data.flip", True)
      ('unit', True)
    """
    for old, new in CONFIG_VALUES.get(field, {}).items():
        if type(new) is type(value) and new == value:
            return old
    return value


def old_name(field: str) -> str:
    """Returns the first name that a field had, by which run directories are hashed.

    Args:
      field: present dotted name, such as "training.duration".

    Examples:
      >>> old_name("training.duration"), old_name("model.name")
      ('training.length', 'model.name')
    """
    return _OLD_NAMES.get(field, field)
