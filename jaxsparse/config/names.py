"""Names that are valid in a config, so that they are checked before JAX is imported.

Scores, methods and networks are in registries, to which users add entries. All other
names are defined in modules that import JAX and are repeated here; a test compares the
two.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxsparse.config import naming, registries

BUILT_IN: dict[str, tuple[str, ...]] = {
    "optimizer.name": ("sgd", "adam", "adamw"),
    "init.kernel": (
        *("kaiming_normal", "kaiming_uniform", "glorot_normal", "glorot_uniform"),
        *("lecun_normal", "lecun_uniform", "orthogonal", "torch_default"),
    ),
    "init.bias": ("zeros", "torch_default"),
    "init.norm_scale": ("ones", "uniform"),
    "init.sparse_init": ("", "fan_in", "fan_out", "fan_average", "layer", "neuron"),
    "sparse.ablation": ("", "shuffled_layers", "inverted", "reinitialized"),
    "sparse.distribution": ("", "global", "uniform", "balanced", "er", "erk"),
    "lottery.controls": (
        *("reinitialized", "shuffled_layers", "shuffled_globally", "random_mask"),
        "dense_continued",
    ),
    "tost.activation": ("", "swish", "mish", "p_swish", "gelu"),
}

# Scores of examples by logits, and statistics for BatchNorm: flags of score_data.py.
LOGIT_SCORES = ("el2n", "margin", "loss")
BATCH_NORM = ("evaluation", "batch")


def check_names(config: ConfigDict) -> None:
    """Checks that all names in a config are built in or registered.

    Args:
      config: a config, which may still have other errors.

    Raises:
      ValueError: if a name is unknown; the message gives the field and similar names.
    """
    known = {field: list(names) for field, names in BUILT_IN.items()}
    for registry in (registries.MODELS, registries.METHODS, registries.SCORES):
        known[registry.field] = list(registry)
    scores = {"lottery.score": list(registries.SCORES)}
    for field, names in (known | scores).items():
        # Missing fields and wrong types pass here: `validate` reports them.
        value: Any = config
        for part in field.split("."):
            value = value.get(part) if isinstance(value, ConfigDict) else None
        values = value if isinstance(value, tuple) else (value,)
        for name in values:
            if isinstance(name, str):
                naming.check_known(field, name, names, others=known)
