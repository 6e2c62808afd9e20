"""Checks of names in a config, before JAX is imported.

Scores, methods, reparameterizations and networks are in registries, to which users add
entries. All other names are listed with their fields; a test compares them with the
modules that define them, which import JAX.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxsparse.config import naming, registries
from jaxsparse.config.fields import FIELDS

# Scores of examples by logits, and statistics for BatchNorm: flags of score_data.py.
LOGIT_SCORES = ("el2n", "margin", "loss")
BATCH_NORM = ("evaluation", "batch")
# Fields whose values are proper names, which say what was meant also in another field.
PROPER = (
    *("sparse.method", "sparse.pai_score", "model.name", "optimizer.name"),
    *("sparse.distribution", "lottery.controls"),
)


def check_names(config: ConfigDict) -> None:
    """Checks that all names in a config are built in or registered.

    Args:
      config: a config, which may still have other errors.

    Raises:
      ValueError: if a name is unknown; the message gives the field and similar names.
    """
    known = {
        name: list(field.valid.choices)
        for name, field in FIELDS.items()
        if field.valid.choices
    }
    for registry in registries.REGISTRIES:
        # Datasets may also be folders, which other checks look for.
        if registry is not registries.DATASETS:
            known[registry.field] = list(registry)
    known["lottery.score"] = list(registries.SCORES)
    proper = {
        field: [name for name in known[field] if name not in ("none", "random")]
        for field in PROPER
    }
    for field, names in known.items():
        # Missing fields and wrong types pass here: `validate` reports them.
        value: Any = config
        for part in field.split("."):
            value = value.get(part) if isinstance(value, ConfigDict) else None
        values = value if isinstance(value, tuple) else (value,)
        for name in values:
            if isinstance(name, str):
                naming.check_known(field, name, names, others=proper)
