"""Checks for combinations of fields in which one would silently have no effect."""

from ml_collections import ConfigDict

from jaxsparse.config.fields import FIELDS


def check_combinations(config: ConfigDict) -> None:
    """Checks combinations of fields that need no knowledge of registered entries.

    Args:
      config: a config with valid values.

    Raises:
      ValueError: if fields exclude each other or one has no effect; the message names
        the field.
    """
    _check_images(config.data)
    _check_lottery(config.lottery)
    _check_optimizer(config)
    steps = config.schedule.name == "step"
    fields = ("milestones", "gamma")
    check_unused(config, "schedule", steps, fields, what="schedule.name 'step'")
    if config.instability.copies == 1 and config.instability.pairs == "copies":
        raise ValueError(
            "config.instability.copies: expected 0, or 2 to 1000, with "
            "instability.pairs 'copies', got 1; train more copies, or set "
            "instability.pairs 'parent', which compares one with the network it copies"
        )
    lottery = config.lottery
    if lottery.particles > 1:
        _check_particles(config)
    if lottery.retrain == "finetune" and config.schedule.name == "cosine":
        raise ValueError(
            "config.lottery.retrain: expected 'rewind' or 'learning_rate_rewind' with "
            "schedule.name 'cosine', whose last learning rate is almost 0, got "
            "'finetune', which trains at that rate; set one of these, or schedule.name "
            "'constant' or 'step'"
        )
    if config.sparse.method != "none" and (
        lottery.levels or lottery.controls or lottery.rewind != "0step"
    ):
        raise ValueError(
            "config.sparse.method: expected 'none' with lottery.levels "
            f"{lottery.levels}, lottery.controls {lottery.controls} and lottery.rewind "
            f"{lottery.rewind!r}, got {config.sparse.method!r}; set 'none', or 0 "
            "levels, no controls and rewind '0step'"
        )


def _check_images(data: ConfigDict) -> None:
    """Checks combinations of the fields that process images."""
    mean, std = data.mean or (), data.std or ()
    if len(mean) != len(std):
        raise ValueError(
            f"config.data.mean: expected as many numbers as data.std, {len(std)}, got "
            f"{data.mean}; set both, or neither"
        )
    if mean and data.normalize != "standardize":
        raise ValueError(
            f"config.data.mean: expected None with data.normalize {data.normalize!r}, "
            f"got {data.mean}; set data.normalize 'standardize', or no mean and std"
        )
    if data.augment == "standard" and (data.crop_pad or data.flip):
        raise ValueError(
            "config.data.augment: expected 'custom' with data.crop_pad "
            f"{data.crop_pad} and data.flip {data.flip}, got 'standard'; set 'custom', "
            "or crop_pad 0 and flip False"
        )
    if data.image_size % data.downsample:
        raise ValueError(
            "config.data.downsample: expected a divisor of data.image_size "
            f"{data.image_size}, got {data.downsample}; change one of the two"
        )
    if data.downsample > 1 and data.augment == "standard":
        raise ValueError(
            "config.data.augment: expected 'custom' with data.downsample "
            f"{data.downsample}, because the standard crops are those of larger "
            "images, got 'standard'; set crop_pad and flip"
        )
    if data.image_size and data.crop_pad:
        raise ValueError(
            f"config.data.crop_pad: expected 0 with data.image_size {data.image_size}, "
            f"which crops images already, got {data.crop_pad}; set one of the two to 0"
        )


def _check_lottery(lottery: ConfigDict) -> None:
    """Checks combinations of the fields that determine how levels are pruned."""
    scope = lottery.scope
    if lottery.layer_fractions and scope != "layer":
        raise ValueError(
            f"config.lottery.layer_fractions: expected () with lottery.scope {scope!r}"
            f", got {lottery.layer_fractions}; set --config.lottery.scope=layer"
        )
    if lottery.min_layer_density and scope != "global":
        raise ValueError(
            "config.lottery.min_layer_density: expected 0.0 with lottery.scope "
            f"{scope!r}, which prunes the same fraction of each layer, got "
            f"{lottery.min_layer_density}; set --config.lottery.scope=global"
        )
    if lottery.count_rule == "open_lth" and (scope != "global" or lottery.one_shot):
        raise ValueError(
            f"config.lottery.count_rule: expected 'exact' with lottery.scope {scope!r} "
            f"and lottery.one_shot {lottery.one_shot}, got 'open_lth', which prunes "
            "globally and level by level; set 'exact'"
        )
    late = [n for n in lottery.control_levels or () if n > lottery.levels]
    if late:
        raise ValueError(
            "config.lottery.control_levels: expected levels up to lottery.levels, "
            f"{lottery.levels}, got {late}; train more levels, or leave them out"
        )


def _check_particles(config: ConfigDict) -> None:
    """Checks that replicates make whole groups of particles, all of them trained."""
    lottery, first = config.lottery, config.seeds.first
    failing = config.run.on_nonfinite
    if (
        config.replicates % lottery.particles
        or first % lottery.particles
        or not lottery.levels
        or lottery.dense_run is not None
    ):
        raise ValueError(
            "config.lottery.particles: expected a divisor of replicates "
            f"{config.replicates} and of seeds.first {first}, and 1 without levels or "
            f"with lottery.dense_run, got {lottery.particles} with lottery.levels "
            f"{lottery.levels} and lottery.dense_run {lottery.dense_run!r}; change one "
            "of these"
        )
    if failing != "stop":
        raise ValueError(
            "config.run.on_nonfinite: expected 'stop' with lottery.particles "
            f"{lottery.particles}, since a mean needs all particles of its group, got "
            f"{failing!r}; leave the field out"
        )


def _check_optimizer(config: ConfigDict) -> None:
    """Checks that all fields of the optimizer are used."""
    c = config.optimizer
    of_adam = ("b1", "b2", "eps", "scale_by_density")
    unused = of_adam if c.name == "sgd" else ("momentum", "nesterov")
    other = "'adam' or 'adamw'" if c.name == "sgd" else "'sgd'"
    check_unused(config, "optimizer", False, unused, what=f"optimizer.name {other}")
    if c.scale_by_density and not (
        config.lottery.levels or config.sparse.method != "none"
    ):
        raise ValueError(
            "config.optimizer.scale_by_density: expected False with lottery.levels 0 "
            "and sparse.method 'none', where nothing is sparse, got True; leave the "
            "field out"
        )
    if c.nesterov and not c.momentum:
        raise ValueError(
            "config.optimizer.nesterov: expected False with optimizer.momentum 0.0, "
            "got True; set a momentum above 0"
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
    for name in fields:
        value, plain = config[section][name], FIELDS[f"{section}.{name}"].default
        if not used and value != plain:
            raise ValueError(
                f"config.{section}.{name}: expected {plain!r} without {what}, got "
                f"{value!r}; set {what}, or leave the field out"
            )
