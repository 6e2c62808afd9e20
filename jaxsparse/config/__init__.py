"""The schema of an experiment: every field, commented once, and its validation.

A config file makes `default()`, changes what its recipe needs and returns it; the
command line overrides single fields. Configs stop at `build`: no function below it
takes one. `schema` has the fields.

Lengths of training are strings: "500step", "2ep" (epochs) or "10%" (of
`training.length`); see `schedules.to_steps`.
"""

from jaxsparse.config import built_in, kept
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
    "scientific",
    "start",
    "to_path",
    "validate",
)
