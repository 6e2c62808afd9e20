"""Config of an experiment: fields, default values, validation and registries.

A config file calls `default()` or `start()`, changes the fields of its recipe and
returns the config; the command line overrides single fields. `fields` defines and
explains all fields; configs/README.md lists them. The package `factory` turns a config
into plain arguments: models, transforms and other functions that compute do not take
configs.

Durations are strings: "500step", "2ep" (epochs) or "10%" (of the length of training);
see `durations.to_steps`.
"""

from jaxsparse.config import (
    built_in,
    built_in_dynamic,
    built_in_models,
    built_in_scores,
    kept,
    renames,
)
from jaxsparse.config.combinations import check_unused
from jaxsparse.config.comparing import (
    differences,
    digest,
    flatten,
    from_json,
    scientific,
)
from jaxsparse.config.fields import FIELDS, SECTIONS
from jaxsparse.config.flags import allow_none
from jaxsparse.config.names import check_names
from jaxsparse.config.naming import check_known, nearest, nearest_field, to_path
from jaxsparse.config.registering import (
    SIZES,
    register_dataset,
    register_method,
    register_model,
    register_reparameterization,
    register_score,
)
from jaxsparse.config.registries import (
    DATASETS,
    METHODS,
    MODELS,
    REGISTRIES,
    REPARAMETERIZATIONS,
    SCORES,
    describe,
)
from jaxsparse.config.schema import default, read_only_default, start, type_of
from jaxsparse.config.specs import (
    DatasetSpec,
    MethodSpec,
    ModelSpec,
    ReparameterizationSpec,
    ScoreSpec,
)
from jaxsparse.config.validation import validate

__all__ = (
    "DATASETS",
    "FIELDS",
    "METHODS",
    "MODELS",
    "REGISTRIES",
    "REPARAMETERIZATIONS",
    "SCORES",
    "SECTIONS",
    "SIZES",
    "DatasetSpec",
    "MethodSpec",
    "ModelSpec",
    "ReparameterizationSpec",
    "ScoreSpec",
    "allow_none",
    "built_in",
    "built_in_dynamic",
    "built_in_models",
    "built_in_scores",
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
    "read_only_default",
    "register_dataset",
    "register_method",
    "register_model",
    "register_reparameterization",
    "register_score",
    "renames",
    "scientific",
    "start",
    "to_path",
    "type_of",
    "validate",
)
