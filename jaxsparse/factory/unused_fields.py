"""Checks for fields of methods, scores, networks and datasets that are not chosen."""

from collections.abc import Collection

from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse.config.specs import (
    DatasetSpec,
    MethodSpec,
    ModelSpec,
    ReparameterizationSpec,
    ScoreSpec,
    Spec,
)


def check(
    config: ConfigDict,
    section: str,
    used: Collection[str],
    *,
    chosen: str,
    remedy: str = "choose one of these, or leave the field out",
) -> None:
    """Checks that fields which the chosen entries do not use have their defaults.

    Args:
      config: a config with valid types and ranges.
      section: section of the fields: "sparse", "model" or "data".
      used: names of the fields of the section that have an effect.
      chosen: what is chosen, for messages, such as "model.name 'lenet_5'".
      remedy: what the user can do; the end of the message.

    Raises:
      ValueError: if an unused field was changed; the message names it, the entries that
        use it, and those that are chosen.
    """
    plain = config_lib.read_only_default()[section]
    for name, value in config[section].items():
        if name in used or value == plain[name]:  # at its default it is not set
            continue
        owners = " and ".join(_owners(section, name)) or "none of those registered"
        raise ValueError(
            f"config.{section}.{name}: expected {plain[name]!r} with {chosen}, got "
            f"{value!r}; the field belongs to {owners}; {remedy}"
        )


def _owners(section: str, name: str) -> list[str]:
    """Lists the entries that use a field, such as "sparse.method gmp, ste"."""
    found = {
        "sparse.method": config_lib.METHODS,
        "sparse.reparameterization": config_lib.REPARAMETERIZATIONS,
        "score": config_lib.SCORES,
        "model.name": config_lib.MODELS,
        "data.name": config_lib.DATASETS,
    }
    parts = []
    for words, registry in found.items():
        users = [spec.name for spec in registry.values() if name in _fields(spec)]
        if users and registry.section == section:
            parts.append(f"{words} {', '.join(users)}")
    return parts


def _fields(spec: Spec) -> tuple[str, ...]:
    """Returns the config fields that an entry uses, in the section of its registry."""
    own = tuple(spec.options)
    if isinstance(spec, MethodSpec | ReparameterizationSpec):
        return spec.fields
    if isinstance(spec, ScoreSpec):
        return (*own, *score_fields(spec))
    if isinstance(spec, ModelSpec):
        return (*own, *model_fields(spec))
    return own if isinstance(spec, DatasetSpec) else ()


def score_fields(spec: ScoreSpec) -> tuple[str, ...]:
    """Returns the built-in fields of the section "sparse" that a score uses.

    Args:
      spec: the score.
    """
    return ("score_batches", "score_batch_size") if spec.needs_data else ()


def model_fields(spec: ModelSpec) -> tuple[str, ...]:
    """Returns the built-in fields of the section "model" that a network uses.

    Args:
      spec: the network.
    """
    return tuple(f for f in (*config_lib.SIZES, "dtype") if f in spec.takes)
