"""Makes the objects of a run from a config.

Scores, methods, networks and datasets are added with `config.registering`. Configs are
checked here and in `config.validate`, so that errors are raised before anything is
compiled.
"""

from jaxsparse.factory.components import make_network, make_optimizer
from jaxsparse.factory.durations import Durations, make_durations
from jaxsparse.factory.eval_fns import EvalFns, make_eval_fns
from jaxsparse.factory.execution_plan import make_execution_plan
from jaxsparse.factory.experiment import make_experiment
from jaxsparse.factory.forgetting import count_forgetting, forgetting_steps
from jaxsparse.factory.input_data import example_input, load_data, make_augment
from jaxsparse.factory.jax_setup import set_up_jax
from jaxsparse.factory.models import make_model
from jaxsparse.factory.sparse_inits import SPARSE_INITS
from jaxsparse.factory.trained_run import (
    TrainedRun,
    load_dense,
    load_state,
    open_run,
    open_without_data,
    read_config,
)
from jaxsparse.factory.validate import check_names
from jaxsparse.factory.warm_start_hashes import recorded_hashes

__all__ = (
    "SPARSE_INITS",
    "EvalFns",
    "Durations",
    "TrainedRun",
    "make_execution_plan",
    "check_names",
    "example_input",
    "count_forgetting",
    "forgetting_steps",
    "make_durations",
    "load_dense",
    "load_state",
    "load_data",
    "make_augment",
    "make_experiment",
    "make_eval_fns",
    "make_model",
    "make_network",
    "make_optimizer",
    "open_run",
    "open_without_data",
    "read_config",
    "recorded_hashes",
    "set_up_jax",
)
