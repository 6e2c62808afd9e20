"""Checks names and combinations of fields before anything is made from a config."""

from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse.factory import (
    dense_run,
    durations,
    gradinit,
    init_masks,
    input_data,
    instability,
    methods,
    models,
    probes,
    tost,
    warm_start_checks,
)
from jaxsparse.factory import (
    pretraining as pretraining_lib,
)


def check_names(config: ConfigDict) -> None:
    """Checks names against the registries and tables, and fields against each other.

    Args:
      config: a config that passed `config.validate`.

    Raises:
      ValueError: if a name is unknown (the message suggests the nearest one), a field
        would have no effect, or fields exclude each other.
    """
    config_lib.check_names(config)
    input_data.check(config)
    models.check(config)
    methods.check(config)
    init_masks.check(config)
    warm_start_checks.check(config)
    probes.check(config)
    instability.check(config)
    pretraining_lib.check(config)
    tost.check(config)
    gradinit.check(config)
    dense_run.check(config)
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
    c, plain = config.solution_penalty, config_lib.read_only_default().solution_penalty
    if not c.strength:
        if c.dtype != plain.dtype:
            raise ValueError(
                f"config.solution_penalty.dtype: expected {plain.dtype!r} with "
                f"strength 0.0, got {c.dtype!r}; set solution_penalty.strength"
            )
        return
    if not config.lottery.levels:
        raise ValueError(
            "config.solution_penalty.strength: expected 0.0 with lottery.levels 0, got "
            f"{c.strength}; train levels, which the penalty compares with earlier ones"
        )
    if config.run.keep_checkpoints != "all":
        raise ValueError(
            "config.run.keep_checkpoints: expected 'all' with "
            f"solution_penalty.strength {c.strength}, which needs the solutions of all "
            f"levels, got {config.run.keep_checkpoints!r}; leave the field out"
        )
