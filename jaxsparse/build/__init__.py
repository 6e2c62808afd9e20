"""From a config to the objects of a run.

Scores, methods, networks and datasets are added by `config.registering`. Everything a
config can get wrong is refused here or in `config.validate`, before anything is
compiled.
"""

from jaxsparse.build.assembly import arrange, make_experiment
from jaxsparse.build.checking import check_names
from jaxsparse.build.chosen import ABLATIONS
from jaxsparse.build.earlier import (
    Run,
    load_state,
    open_run,
    open_without_data,
    read_config,
    recorded_hashes,
)
from jaxsparse.build.functions import Functions, make_functions
from jaxsparse.build.lengths import Lengths, lengths
from jaxsparse.build.networks import make_model
from jaxsparse.build.pieces import (
    OPTIMIZERS,
    REDRAWS,
    load_data,
    make_augment,
    make_network,
    make_optimizer,
)
from jaxsparse.build.replaying import count_forgetting
from jaxsparse.build.surroundings import set_up_jax

__all__ = (
    "ABLATIONS",
    "OPTIMIZERS",
    "REDRAWS",
    "Functions",
    "Lengths",
    "Run",
    "arrange",
    "check_names",
    "count_forgetting",
    "lengths",
    "load_state",
    "load_data",
    "make_augment",
    "make_experiment",
    "make_functions",
    "make_model",
    "make_network",
    "make_optimizer",
    "open_run",
    "open_without_data",
    "read_config",
    "recorded_hashes",
    "set_up_jax",
)
