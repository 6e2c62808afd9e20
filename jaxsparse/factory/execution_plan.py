"""Chooses how steps and replicates are executed, which affects speed only."""

from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from jaxsparse.factory import example_feed, models
from jaxsparse.factory.trainer_parts import TrainerParts
from jaxsparse.training import chunk_inputs, input_pipeline
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
    # Custom gradients are as fast in loops as outside.
    convolves &= not models.uses_custom_conv_grads(config)
    on_cpu = jax.default_backend() == "cpu"
    scan, how = config.run.scan, config.run.replicate_mode
    # A loop spares a dispatch for each step, except where it slows down convolutions.
    single = convolves and on_cpu if scan is None else not scan
    if how == "auto":
        # GPUs and TPUs need the large operations of a batch. "map" compiles the
        # operations of one replicate, but it is a loop, so not for slow convolutions.
        how = "vmap" if not on_cpu else "unroll" if convolves else "map"
    return ExecutionPlan(single, how)


class Execution(NamedTuple):
    """How a trainer is executed.

    Attributes:
      plan: how steps and replicates are executed according to config and devices.
      placement: where training examples are stored.
      steps_per_call: maximum number of steps in one chunk.
      how: how training steps are mapped over replicates.
      how_evaluated: how evaluations and measurements are mapped over replicates.
    """

    plan: ExecutionPlan
    placement: chunk_inputs.Where
    steps_per_call: int
    how: How
    how_evaluated: How


def plan_execution(parts: TrainerParts) -> Execution:
    """Decides how the steps of a trainer are executed.

    Args:
      parts: what the trainer is made from.

    Raises:
      ValueError: if the requested placement of examples is impossible; the message
        names the config field.
    """
    config, dataset, layout = parts.config, parts.dataset, parts.layout
    placement = example_feed.choose_placement(config, dataset, layout)
    plan = make_execution_plan(config, parts.task.masks)
    per_call = 1 if plan.single else config.run.steps_per_call
    # Examples on the host are copied for a whole chunk, which therefore has to fit into
    # memory.
    if placement == "host":
        per_call = input_pipeline.steps_per_call(
            dataset.train,
            wanted=min(per_call, parts.epoch.steps),
            batch_size=parts.epoch.batch_size,
            replicates=config.replicates,
        )
    # Outside of `shard_map`, a loop over replicates would transfer them between
    # devices. Training runs inside of it unless parameters are sharded.
    outside = plan.how if layout.mesh.size == 1 else "vmap"
    how = outside if layout.divides else plan.how
    return Execution(plan, placement, per_call, how, outside)


def describe(parts: TrainerParts, execution: Execution) -> dict[str, Any]:
    """Describes the execution as JSON values that are stored with the run.

    Args:
      parts: what the trainer is made from.
      execution: how it is executed.
    """
    explicit = models.uses_custom_conv_grads(parts.config)
    layout, placement = parts.layout, execution.placement
    return {
        "convolutions": "explicit" if explicit else "library",
        "steps": "single" if execution.plan.single else "scan",
        "replicates_by": execution.how,
        "parallelism": layout.parallelism,
        "mesh": dict(layout.mesh.shape),
        **({"weights": "sharded"} if layout.divides else {}),
        **({} if placement == "device" else {"examples": placement}),
    }
