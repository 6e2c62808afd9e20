"""Validation of a config: its fields, their types and ranges, and combinations."""

from typing import Any

from ml_collections import ConfigDict

from jaxsparse.config import naming, schema
from jaxsparse.config.ranges import RULES


def validate(config: ConfigDict) -> None:
    """Checks the name, type and range of every field, and combinations of fields.

    This compiles nothing and reads no files.

    Args:
      config: a config with the fields of `default()`.

    Raises:
      ValueError: if a field is invalid; the message gives the first such field, its
        value and the valid values.
    """
    # Types first: the rules rely on them.
    _check_fields(config, schema.default(), "", schema.default())
    for name, (holds, wanted) in RULES.items():
        value: Any = config
        for part in name.split("."):
            value = value[part]
        if not holds(value):
            raise ValueError(f"config.{name}: came {value!r}; wanted {wanted}")
    _check_together(config)


def _names(schema: ConfigDict, prefix: str = "") -> list[str]:
    """Returns the dotted names of all fields."""
    found = []
    for name, value in schema.items():
        inside = isinstance(value, ConfigDict)
        found += _names(value, f"{prefix}{name}.") if inside else [prefix + name]
    return found


def _check_fields(
    config: ConfigDict, schema: ConfigDict, prefix: str, top: ConfigDict
) -> None:
    for name in config:
        if name not in schema:
            raise ValueError(
                f"config.{prefix}{name}: no such field; did you mean "
                f"{naming.nearest_field(prefix + name, _names(top))}?"
            )
    for name, like in schema.items():
        if name not in config:
            raise ValueError(
                f"config.{prefix}{name}: missing; start from jaxsparse.config.default()"
            )
        value = config[name]
        if isinstance(like, ConfigDict):
            if not isinstance(value, ConfigDict):
                raise ValueError(
                    f"config.{prefix}{name}: came {value!r}; wanted a section with the "
                    f"fields {list(like)}"
                )
            _check_fields(value, like, f"{prefix}{name}.", top)
        elif type(value) is not type(like):
            raise ValueError(
                f"config.{prefix}{name}: came {value!r}, a {type(value).__name__}; "
                f"wanted a {type(like).__name__}, such as {like!r}"
            )


def _check_images(data: ConfigDict) -> None:
    """Checks combinations of the fields that process images."""
    if len(data.mean) != len(data.std) or (data.mean and data.normalize == "unit"):
        raise ValueError(
            f"config.data.mean: came {data.mean} with std {data.std} and normalize "
            f"{data.normalize!r}; wanted as many numbers in both, and normalize "
            "'channels', or () for both"
        )
    if data.augment == "published" and (data.crop_pad or data.flip):
        raise ValueError(
            f"config.data.augment: came 'published' with crop_pad {data.crop_pad} and "
            f"flip {data.flip}; wanted 0 and False, or augment 'as_given'"
        )
    if data.image_size and data.crop_pad:
        raise ValueError(
            f"config.data.crop_pad: came {data.crop_pad} with size {data.image_size}, which "
            "already takes a random part of each image; wanted 0, or size 0"
        )


def _check_together(config: ConfigDict) -> None:
    """Checks for combinations in which a field would silently have no effect."""
    lottery = config.lottery
    _check_images(config.data)
    if lottery.layer_fractions and lottery.scope != "layer":
        raise ValueError(
            "config.lottery.layer_fractions: given with scope 'global'; wanted scope "
            "'layer'; set --config.lottery.scope=layer"
        )
    if lottery.min_layer_density and lottery.scope != "global":
        raise ValueError(
            f"config.lottery.min_layer_density: came {lottery.min_layer_density} with "
            f"scope {lottery.scope!r}; wanted scope 'global', as each layer keeps a "
            "weight otherwise"
        )
    if lottery.count_rule == "open_lth" and (lottery.scope, lottery.one_shot) != (
        "global",
        False,
    ):
        raise ValueError(
            "config.lottery.count_rule: 'open_lth' is a rule of global pruning, level "
            f"by level; came scope {lottery.scope!r}, one_shot {lottery.one_shot}; "
            "wanted counting 'exact' with these"
        )
    beyond = [level for level in lottery.control_levels if level > lottery.levels]
    if beyond:
        raise ValueError(
            f"config.lottery.control_levels: came {beyond}; wanted levels up to "
            f"config.lottery.levels={lottery.levels}"
        )
    if config.schedule.milestones and config.schedule.name != "step":
        raise ValueError(
            f"config.schedule.milestones: given with schedule "
            f"{config.schedule.name!r}; wanted schedule.name 'step', or no milestones"
        )
    if config.optimizer.name != "sgd" and (
        config.optimizer.momentum or config.optimizer.nesterov
    ):
        raise ValueError(
            f"config.optimizer.momentum: {config.optimizer.momentum} (nesterov "
            f"{config.optimizer.nesterov}) given with {config.optimizer.name!r}; "
            "wanted optimizer.name 'sgd', or momentum 0.0 and nesterov False"
        )
    _check_read(config)
    if config.sparse.method != "none" and (
        lottery.levels or lottery.controls or lottery.rewind != "0step"
    ):
        raise ValueError(
            f"config.sparse.method: came {config.sparse.method!r} with lottery.levels "
            f"{lottery.levels}, controls {lottery.controls} and rewind "
            f"{lottery.rewind!r}; wanted method 'none', or no levels, no controls and "
            "rewind '0step'"
        )
    if config.optimizer.nesterov and not config.optimizer.momentum:
        raise ValueError(
            "config.optimizer.nesterov: given with momentum 0.0; wanted a momentum "
            "in (0, 1)"
        )


def _check_read(config: ConfigDict) -> None:
    """Checks that no field is set that the optimizer or the schedule does not use."""
    check_unused(
        *(config, "optimizer", config.optimizer.name != "sgd", ("b1", "b2", "eps")),
        what="optimizer.name 'adam' or 'adamw'",
    )
    check_unused(
        *(config, "schedule", config.schedule.name == "step", ("gamma",)),
        what="schedule.name 'step'",
    )


def check_unused(
    config: ConfigDict,
    section: str,
    used: bool,
    fields: tuple[str, ...],
    *,
    what: str,
) -> None:
    """Checks that fields have their default values if nothing uses them.

    Args:
      config: a config.
      section: section of the fields.
      used: whether the fields are used; if True, nothing is checked.
      fields: names of the fields in the section.
      what: setting with which the fields would be used, for the message.

    Raises:
      ValueError: if an unused field was changed; the message names it.
    """
    plain = schema.default()[section]
    for name in fields:
        if not used and config[section][name] != plain[name]:
            raise ValueError(
                f"config.{section}.{name}: came {config[section][name]!r} without "
                f"{what}; wanted {plain[name]!r}, or {what}"
            )
