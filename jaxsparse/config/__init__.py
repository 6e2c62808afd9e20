"""The schema of an experiment: every field, commented once, and its validation.

A config file makes `default()`, changes what its recipe needs and returns it; the
command line overrides single fields. Configs stop at `build`: no function below it
takes one. `schema` has the fields.

Lengths of training are strings: "500step", "2ep" (epochs) or "10%" (of
`training.length`); see `schedules.to_steps`.
"""

from jaxsparse.config.comparing import (
    GROWING,
    OPERATIONAL,
    differences,
    digest,
    flatten,
    from_json,
    scientific,
)
from jaxsparse.config.names import BUILT_IN, check_built_in
from jaxsparse.config.naming import check_known, nearest, nearest_field, to_path
from jaxsparse.config.ranges import RULES
from jaxsparse.config.rules import check_unused, validate
from jaxsparse.config.schema import default, start

__all__ = (
    "BUILT_IN",
    "GROWING",
    "OPERATIONAL",
    "RULES",
    "check_built_in",
    "check_known",
    "check_unused",
    "default",
    "differences",
    "digest",
    "flatten",
    "from_json",
    "nearest",
    "nearest_field",
    "scientific",
    "start",
    "to_path",
    "validate",
)
