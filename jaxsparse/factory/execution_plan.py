"""Chooses how steps and replicates are executed: a question of speed alone."""

from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from jaxsparse.factory import models
from jaxsparse.training.vmap_seeds import How


class ExecutionPlan(NamedTuple):
    """How steps and replicates are executed; results differ in the last bits only.

    Attributes:
      single: whether steps are dispatched one by one instead of by `lax.scan`.
      how: how functions are mapped over replicates: "vmap" batches them, "map" loops
        over them, "unroll" repeats the operations for each.
    """

    single: bool
    how: How


def make_execution_plan(config: ConfigDict, masks: Any) -> ExecutionPlan:
    """Chooses how steps and replicates are executed, by speed or by the config.

    On CPUs, gradients of convolutions are several times slower inside `lax.scan` or
    batched by vmap than outside, unless custom gradients are used
    (`models.convolutions`). Batched products of small matrices are slower than separate
    ones.

    Args:
      config: a validated config.
      masks: masks of one replicate; a leaf with more than 2 axes is taken as a sign of
        convolutions.
    """
    convolves = any(leaf.ndim > 2 for leaf in jax.tree.leaves(masks))
    convolves &= not models.uses_custom_conv_grads(config)
    on_cpu = jax.default_backend() == "cpu"
    single, how = config.run.dispatch == "single", config.run.replicate_mode
    if config.run.dispatch == "auto":
        single = convolves and on_cpu
    if how == "auto":
        how = "vmap" if not on_cpu else "unroll" if convolves else "map"
    return ExecutionPlan(single, how)
