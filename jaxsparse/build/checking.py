"""Refusing, before anything is built, what no table has and nothing would read."""

from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import initializers
from jaxsparse.build import (
    chosen,
    earlier,
    lengths,
    measuring,
    networks,
    pieces,
    sparse,
    stability,
)
from jaxsparse.lottery import controls


def check_names(config: ConfigDict) -> None:
    """Refuses names that no table here has, with the nearest that one has.

    Raises:
      ValueError: naming the field.
    """
    networks.check(config)
    config_lib.check_known(
        "optimizer.name", config.optimizer.name, list(pieces.OPTIMIZERS)
    )
    config_lib.check_known(
        "init.kernel", config.init.kernel, list(initializers.KERNELS)
    )
    config_lib.check_known("init.bias", config.init.bias, list(initializers.BIASES))
    if config.init.sparse:
        config_lib.check_known("init.sparse", config.init.sparse, list(pieces.REDRAWS))
    config_lib.check_known(
        "init.norm_scale", config.init.norm_scale, list(initializers.NORM_SCALES)
    )
    for name in config.lottery.controls:
        config_lib.check_known("lottery.controls", name, list(controls.NAMES))
    sparse.check(config)
    chosen.check(config)
    earlier.check(config)
    measuring.check(config)
    stability.check(config)
    lengths.lengths(config, steps_per_epoch=10**9)  # only whether they can be read
