"""The record of one config field: its default value, valid values and documentation."""

import dataclasses
from typing import Any

from ml_collections import config_dict

from jaxsparse.config.valid import Valid


@dataclasses.dataclass(frozen=True)
class Field:
    """A config field.

    Attributes:
      default: default value. None stands for "not used" or for a value that depends on
        other fields; `help` says which.
      valid: valid values.
      help: what the field means, in full sentences, with its unit.
      operational: whether results do not depend on the field. Such a field may change
        when a run continues, and the default name of the run directory does not
        depend on it.
      may_grow: whether the field may increase when a run continues.
    """

    default: Any
    valid: Valid
    help: str
    operational: bool = False
    may_grow: bool = False

    def initial(self) -> Any:
        """Returns the default value in the form in which a ConfigDict stores it.

        A field that may be None is stored with its type, so that a flag can still set
        it after a recipe has set it to None.
        """
        if self.default is None or self.valid.optional:
            return config_dict.FieldReference(self.default, field_type=self.valid.type)
        return self.default


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of the config.

    Attributes:
      help: what the fields are about, in full sentences.
      fields: the fields by name.
    """

    help: str
    fields: dict[str, Field]
