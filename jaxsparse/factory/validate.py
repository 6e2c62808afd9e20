"""Checks names and combinations of fields before anything is made from a config."""

from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import initializers
from jaxsparse.factory import (
    components,
    durations,
    gradinit,
    init_masks,
    instability,
    methods,
    models,
    probes,
    tost,
    warm_start,
)
from jaxsparse.factory import (
    pretraining as pretraining_lib,
)
from jaxsparse.lottery import controls


def check_names(config: ConfigDict) -> None:
    """Checks names against the registries and tables, and fields against each other.

    Args:
      config: a config that passed `config.validate`.

    Raises:
      ValueError: if a name is unknown (the message suggests the nearest one), a field
        would have no effect, or fields exclude each other.
    """
    models.check(config)
    config_lib.check_known(
        "optimizer.name", config.optimizer.name, list(components.OPTIMIZERS)
    )
    config_lib.check_known(
        "init.kernel", config.init.kernel, list(initializers.KERNELS)
    )
    config_lib.check_known("init.bias", config.init.bias, list(initializers.BIASES))
    if config.init.sparse_init:
        config_lib.check_known(
            "init.sparse_init", config.init.sparse_init, list(components.SPARSE_INITS)
        )
    config_lib.check_known(
        "init.norm_scale", config.init.norm_scale, list(initializers.NORM_SCALES)
    )
    for name in config.lottery.controls:
        config_lib.check_known("lottery.controls", name, list(controls.NAMES))
    methods.check(config)
    init_masks.check(config)
    warm_start.check(config)
    probes.check(config)
    instability.check(config)
    pretraining_lib.check(config)
    tost.check(config)
    gradinit.check(config)
    _check_repelling(config)
    # The number of steps per epoch is not known yet; any large number shows whether the
    # durations can be read.
    durations.make_durations(config, steps_per_epoch=10**9)


def _check_repelling(config: ConfigDict) -> None:
    """Checks that a solution penalty has past solutions to be computed from.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if it has none, or its options are set without a strength; the message
        names the config field.
    """
    c, plain = config.solution_penalty, config_lib.default().solution_penalty
    if not c.strength:
        if c.dtype != plain.dtype:
            raise ValueError(
                f"config.solution_penalty.dtype: came {c.dtype!r} with strength 0; wanted "
                f"{plain.dtype!r}, or a strength"
            )
        return
    if not config.lottery.levels:
        raise ValueError(
            f"config.solution_penalty.strength: came {c.strength} with lottery.levels 0; "
            "wanted levels, which are repelled from those before"
        )
    if config.run.keep_checkpoints != "all":
        raise ValueError(
            f"config.run.keep_checkpoints: came {config.run.keep_checkpoints!r} with solution_penalty.strength "
            f"{c.strength}, for which the ends of all levels are needed; wanted 'all'"
        )
