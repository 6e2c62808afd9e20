"""Config of an experiment: fields, default values, validation and registries.

A config file calls `default()` or `start()`, changes the fields of its recipe and
returns the config; the command line overrides single fields. `schema` defines and
explains all fields. The package `factory` turns a config into plain arguments: models,
transforms and other functions that compute do not take configs.

Durations are strings: "500step", "2ep" (epochs) or "10%" (of the length of training);
see `durations.to_steps`.
"""

from jaxsparse.config import built_in, kept, renames
from jaxsparse.config.comparing import (
    GROWING,
    OPERATIONAL,
    differences,
    digest,
    flatten,
    from_json,
    scientific,
)
from jaxsparse.config.names import BUILT_IN, check_names
from jaxsparse.config.naming import check_known, nearest, nearest_field, to_path
from jaxsparse.config.ranges import RULES
from jaxsparse.config.registering import (
    SIZES,
    register_dataset,
    register_method,
    register_model,
    register_score,
)
from jaxsparse.config.registries import (
    DATASETS,
    METHODS,
    MODELS,
    SCORES,
    DatasetSpec,
    MethodSpec,
    ModelSpec,
    ScoreSpec,
    describe,
)
from jaxsparse.config.rules import check_unused, validate
from jaxsparse.config.schema import default, start

__all__ = (
    "BUILT_IN",
    "DATASETS",
    "GROWING",
    "METHODS",
    "MODELS",
    "OPERATIONAL",
    "RULES",
    "SCORES",
    "SIZES",
    "DatasetSpec",
    "MethodSpec",
    "ModelSpec",
    "ScoreSpec",
    "built_in",
    "check_known",
    "check_names",
    "check_unused",
    "default",
    "describe",
    "differences",
    "digest",
    "flatten",
    "from_json",
    "kept",
    "nearest",
    "nearest_field",
    "register_dataset",
    "register_method",
    "register_model",
    "register_score",
    "renames",
    "scientific",
    "start",
    "to_path",
    "validate",
)
