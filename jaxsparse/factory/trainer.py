"""Makes the trainer of a config: compiled steps, data, evaluations and settings."""

import functools
from collections.abc import Mapping
from typing import Any

import jax

from jaxsparse import config as config_lib
from jaxsparse.factory import (
    components,
    eval_fns,
    example_feed,
    input_data,
    models,
    probes,
    tost,
)
from jaxsparse.factory.execution_plan import Execution, describe, plan_execution
from jaxsparse.factory.trainer_parts import TrainerParts
from jaxsparse.runner.task import first_state
from jaxsparse.training import (
    chunk_plan,
    evaluation,
    input_pipeline,
    scan_chunks,
    state_sharding,
    steps,
)
from jaxsparse.training import state as state_lib
from jaxsparse.training.input_pipeline import Feed
from jaxsparse.training.state import TrainState
from jaxsparse.training.trainer import LoopSettings, RecordSettings, Trainer

MAX_INFLIGHT_CALLS = 64  # chunks dispatched before the host waits for their metrics


def make_trainer(parts: TrainerParts, *, per_example: bool = False) -> Trainer:
    """Makes the settings and compiled functions that stages share.

    Args:
      parts: what the trainer is made from.
      per_example: whether steps return the correctness of each example.

    Raises:
      ValueError: if the parts do not fit together; the message names the config field.
    """
    execution = plan_execution(parts)
    like = jax.eval_shape(functools.partial(first_state, parts.task), parts.seeds)
    train_step, eval_step = _make_steps(parts, like, per_example=per_example)
    return Trainer(
        compiled_steps=scan_chunks.make_chunk_fns(
            train_step,
            like,
            layout=parts.layout,
            how=execution.how,
            usual_length=execution.steps_per_call,
            examples=execution.placement,
        ),
        feed=_make_feed(parts, execution),
        evaluate=_make_evaluations(parts, execution, eval_step, like),
        layout=parts.layout,
        epoch=parts.epoch,
        loop=_make_loop(parts, execution),
        records=_make_records(parts, execution, like),
        execution_plan=describe(parts, execution),
    )


def _make_steps(
    parts: TrainerParts, like: TrainState, *, per_example: bool
) -> tuple[steps.TrainStep, Any]:
    """Makes the training step and the evaluation step of one replicate.

    Args:
      parts: what the trainer is made from.
      like: a state of all replicates; only its structure and shapes are used.
      per_example: whether training steps return the correctness of each example.
    """
    config, classes = parts.config, parts.dataset.classes
    axis_name = parts.layout.batch_axis
    task = input_data.make_task(config, parts.dataset)
    annealed = tost.make_annealed_model(config, parts.durations, axis_name=axis_name)
    gather = state_sharding.make_gather(parts.layout, like)
    gradient = steps.make_loss_gradient(
        models.make_model(config, classes=classes, axis_name=axis_name, training=True),
        task=task,
        annealed=annealed,
        label_smoothing=tost.make_smoothing(config, parts.durations),
        smooth_over=config.training.smoothing_target,
        gather=gather,
        per_example=per_example,
    )
    train_step = steps.make_train_step(
        gradient,
        parts.task.tx,
        augment=input_data.make_augment(config),
        penalty=config.solution_penalty.strength,
        axis_name=axis_name,
    )
    plain = models.make_model(config, classes=classes, axis_name=axis_name)
    eval_step = steps.make_eval_step(plain, task=task, annealed=annealed, gather=gather)
    return train_step, eval_step


def _make_feed(parts: TrainerParts, execution: Execution) -> Feed:
    """Makes the feed that supplies the training examples."""
    train, sparse = parts.dataset.train, parts.config.sparse
    room = functools.partial(chunk_plan.room, usual_length=execution.steps_per_call)
    growth = input_pipeline.grow_batch_size(
        parts.layout,
        train,
        first=sparse.grow_batch_start,
        count=sparse.grow_batch_size,
    )
    return input_pipeline.make_feed(
        train,
        example_feed.make_order(parts.layout, len(train.labels)),
        layout=parts.layout,
        where=execution.placement,
        lengths=room,
        growth=growth,
    )


def _make_evaluations(
    parts: TrainerParts, execution: Execution, eval_step: Any, like: TrainState
) -> Mapping[str, evaluation.Evaluate]:
    """Makes the evaluation of each set that has examples, by name of the set.

    Args:
      parts: what the trainer is made from.
      execution: how it is executed.
      eval_step: evaluation step of one replicate.
      like: a state of all replicates; only its structure and shapes are used.
    """
    dataset, layout = parts.dataset, parts.layout
    sets = {"validation": dataset.validation, "test": dataset.test}
    return {
        name: evaluation.make_evaluate(
            eval_step,
            like,
            *examples,
            batch_size=parts.config.evaluation.batch_size,
            layout=layout,
            how=execution.how_evaluated,
            streamed=example_feed.is_streamed(execution.placement, examples, layout),
        )
        for name, examples in sets.items()
        if len(examples.labels)
    }


def _make_loop(parts: TrainerParts, execution: Execution) -> LoopSettings:
    """Makes the settings of the training loop."""
    intervals, inflight = parts.durations.intervals, MAX_INFLIGHT_CALLS
    if execution.placement == "host":
        # Each chunk in flight holds its images in device memory.
        inflight = input_pipeline.IN_FLIGHT
    if jax.default_backend() == "cpu" and parts.layout.mesh.size > 1:
        # CPU devices made with --xla_force_host_platform_device_count hang if many
        # calls with collectives are in flight.
        inflight = 1
    return LoopSettings(
        steps_per_call=execution.steps_per_call,
        evaluate_every=intervals.evaluate_every,
        checkpoint_every=intervals.checkpoint_every,
        save_at_steps=intervals.save_at,
        trace=intervals.trace,
        max_inflight_calls=inflight,
        continue_on_nonfinite=parts.config.run.on_nonfinite == "continue",
        pack_ends=parts.config.run.pack_checkpoints,
    )


def _make_records(
    parts: TrainerParts, execution: Execution, like: TrainState
) -> RecordSettings:
    """Makes the settings of the records.

    Args:
      parts: what the trainer is made from.
      execution: how it is executed.
      like: a state of all replicates; only its structure and shapes are used.
    """
    config, dataset, durations = parts.config, parts.dataset, parts.durations
    stats = state_lib.of_one(like.batch_stats)
    loss = eval_fns.make_eval_fns(config, dataset, stats).loss
    method = config_lib.METHODS.find(config.sparse.method)
    anneals = tost.tost_strength(config)
    return RecordSettings(
        learning_rate=components.make_rate(config, durations),
        dynamic_masks=parts.task.masks if method.mask_updates.updates_masks else None,
        probe=probes.make_probe(
            config, dataset, loss, durations, how=execution.how_evaluated
        ),
        anneal_end_step=durations.annealing.tost_end if anneals else 0,
    )
