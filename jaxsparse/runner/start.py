"""Makes what a stage starts from: its state, random keys, and trainer."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from jaxsparse.lottery import controls, instability, particles
from jaxsparse.lottery import plan as plan_lib
from jaxsparse.runner import gradinit_factors
from jaxsparse.runner.masks import stage_masks
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.stages import CHILDREN, PRETRAINING, Stage
from jaxsparse.training import placement, solution_penalty, state_sharding
from jaxsparse.training import state as state_lib
from jaxsparse.training.state import Seeds, TrainState
from jaxsparse.training.trainer import Trainer
from jaxsparse.types import Masks, Params


def start_state(saved: SavedStates, stage: Stage, masks: Masks | None) -> TrainState:
    """Makes the initial state of a stage, in the checkpoint layout.

    Args:
      saved: states of earlier stages.
      stage: the stage.
      masks: the result of `masks.stage_masks`.

    Raises:
      LostState: if weights to start from are missing or corrupt.
    """
    if masks is None:
        return saved.init
    task, keys = saved.experiment.task, saved.experiment.seeds.masks
    layout = saved.experiment.trainer.layout
    if stage.variant == CHILDREN:
        layout = saved.experiment.instability.trainer.layout
        copies = saved.plan.children.copies
        params, batch_stats = _parent_weights(saved, stage, masks)
        # All copies of a replicate share the key of the sparse optimizer, so that
        # they differ in SGD noise only. The clone keeps JAX's key-reuse checker from
        # counting a second use.
        start = (params, batch_stats, masks, jax.random.clone(keys))
        start = instability.copies(start, copies)
    else:
        start = (*_initial_weights(saved, stage, masks), masks, keys)
    start = state_sharding.put_start(layout, start)
    return state_lib.start(task.tx, *start, step=stage.start, place=task.place)


def _parent_weights(
    saved: SavedStates, stage: Stage, masks: Masks
) -> tuple[Params, Any]:
    """Returns the weights and batch statistics with which copies start [r ...].

    Args:
      saved: states of earlier stages.
      stage: stage of the copies.
      masks: masks of the parent.
    """
    parent = plan_lib.ticket(saved.plan, stage.level)
    if stage.start == parent.start:
        state = start_state(saved, parent, masks)
    elif stage.start == 0:
        state = saved.init
    else:
        source = plan_lib.state_source(saved.plan, stage)
        state = saved.at_step(source, stage.start)
    return state.params, state.batch_stats


def _initial_weights(
    saved: SavedStates, stage: Stage, masks: Masks
) -> tuple[Params, Any]:
    """Returns the weights and batch statistics with which a variant starts [r ...].

    Args:
      saved: states of earlier stages.
      stage: the stage of a ticket or a control.
      masks: masks of the variant [r ...].
    """
    task = saved.experiment.task
    params, batch_stats = _source_weights(saved, stage)
    is_first = stage.level == 0 and task.start.first_weights is None
    # Weights of a later ticket are rewound or trained, and weights of another run are
    # taken as they are; only newly drawn ones are redrawn for their masks.
    redraw = task.start.redraw
    if redraw is not None and (is_first or stage.variant in controls.FRESH):
        draw = jax.jit(
            jax.vmap(redraw),
            out_shardings=jax.tree.map(lambda leaf: leaf.sharding, params)
            if task.place
            else None,
        )
        seeds = saved.experiment.seeds
        keys = draw_keys(seeds, f"redrawn {stage.variant}", stage.level)
        params = draw(params, masks, keys)
    if task.start.rescale is not None:
        params = gradinit_factors.rescale(saved, params, batch_stats, masks)
    return params, batch_stats


def _source_weights(saved: SavedStates, stage: Stage) -> tuple[Params, Any]:
    """Returns weights and batch statistics [r ...] before they are masked or rescaled.

    Args:
      saved: states of earlier stages.
      stage: the stage of a ticket or a control.
    """
    task = saved.experiment.task
    if stage.variant in controls.FRESH or task.start.fresh_weights:
        seeds = saved.experiment.seeds
        return task.initialize(draw_keys(seeds, stage.variant, stage.level))
    source = plan_lib.weights_source(saved.plan, stage)
    state = saved.init if source is None else saved.at_step(*source)
    params, batch_stats = state.params, state.batch_stats
    retraining = saved.plan.retraining
    if stage.level and retraining.keeps_weights and stage.variant != "dense_continued":
        params, batch_stats = particles.average(
            (params, batch_stats), particles=retraining.particles
        )
    if stage.variant in controls.MIXED:
        keys = draw_keys(saved.experiment.seeds, stage.variant, stage.level)
        fresh, _ = task.initialize(keys)
        params = controls.mix(stage.variant, params, fresh, task.masks)
    return params, batch_stats


def draw_keys(seeds: Seeds, name: str, level: int) -> Key[Array, "r"]:
    """Derives the keys from which a stage draws new weights.

    Args:
      seeds: random keys of all replicates.
      name: name of the draw, hashed into the keys.
      level: level of the stage.
    """
    return _keys_of(seeds.init, name, np.int32(level))


@functools.partial(jax.jit, static_argnums=1)
def _keys_of(
    keys: Key[Array, "r"], name: str, level: Int[Array, ""]
) -> Key[Array, "r"]:
    """Applies `controls.key_of` to the key of each replicate, at a traced level."""
    return jax.vmap(controls.key_of, in_axes=(0, None, None))(keys, name, level)


def stage_keys(saved: SavedStates, stage: Stage) -> Key[Array, "r"]:
    """Returns the keys of a stage's example order and augmentation.

    Args:
      saved: states of earlier stages.
      stage: the stage.

    Returns:
      Typed random keys, one per replicate [r], or one per copy [r * c] for copies.
    """
    keys = saved.experiment.seeds.data
    count = saved.plan.retraining.particles
    if stage.variant == PRETRAINING and count > 1:
        # All particles of a group start from one network.
        keys = _shared_by_groups(keys, count)
    if saved.plan.reshuffle:
        keys = _fold_level(keys, np.uint32(stage.level))
    if stage.variant == CHILDREN:
        keys = instability.data_keys(keys, saved.plan.children.copies)
    return keys


@functools.partial(jax.jit, static_argnums=1)
def _shared_by_groups(keys: Key[Array, "r"], particles: int) -> Key[Array, "r"]:
    """Gives all particles of a group the key of its first."""
    return jnp.repeat(keys[::particles], particles)


@jax.jit
def _fold_level(keys: Key[Array, "r"], level: Any) -> Key[Array, "r"]:
    """Folds the number of a level into each key."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, level)


def stage_trainer(saved: SavedStates, stage: Stage) -> Trainer:
    """Returns the trainer of a stage, with the past solutions of its penalty.

    The trainer also saves the states from which copies start.

    Args:
      saved: states of earlier stages.
      stage: the stage.

    Raises:
      LostState: if a past solution is missing or corrupt.
    """
    experiment = saved.experiment
    if stage.variant == CHILDREN:
        return with_past_solutions(saved, stage, experiment.instability.trainer)
    trainer = experiment.trainer
    if stage.variant == PRETRAINING:
        trainer = experiment.pretrainer or trainer
    steps = {*trainer.loop.save_at_steps, *plan_lib.saved_steps(saved.plan, stage)}
    loop = trainer.loop._replace(save_at_steps=tuple(sorted(steps)))
    return with_past_solutions(saved, stage, trainer._replace(loop=loop))


def with_past_solutions(saved: SavedStates, stage: Stage, trainer: Trainer) -> Trainer:
    """Adds the final weights of earlier tickets to a trainer, for the penalty.

    Args:
      saved: states of earlier stages.
      stage: the stage to be trained.
      trainer: the trainer of the stage.

    Returns:
      The trainer with the past solutions, sharded by replicate; unchanged in an
      experiment without the penalty of `training.solution_penalty`, and for the
      pretraining.

    Raises:
      LostState: if a past solution is missing or corrupt.
    """
    experiment, plan = saved.experiment, saved.plan
    if experiment.penalty_dtype is None or stage.variant == PRETRAINING:
        return trainer
    make = functools.partial(
        solution_penalty.allocate,
        experiment.task.masks,
        plan.levels,
        dtype=experiment.penalty_dtype,
    )
    count = trainer.layout.replicates
    solutions = jax.tree.map(
        lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype),
        jax.eval_shape(make),
    )
    put = jax.jit(
        jax.vmap(solution_penalty.store, in_axes=(0, 0, None)), donate_argnums=0
    )
    # One solution after the other, into buffers that are donated: at no time are all
    # final states in memory together.
    for level in range(stage.level):
        end = saved.end_of(plan_lib.ticket(plan, level)).params
        if stage.variant == CHILDREN:
            end = instability.copies(end, plan.children.copies)
        solutions = put(solutions, end, np.int32(level))
    filled = jnp.full(count, stage.level, jnp.int32)
    placed = placement.shard_replicates(
        trainer.layout, solution_penalty.PastSolutions(solutions, filled)
    )
    return trainer._replace(past_solutions=placed)


def replay_start(
    saved: SavedStates, stage: Stage
) -> tuple[Trainer, TrainState, Key[Array, "r"]]:
    """Returns what a stage of an existing run was trained with and from.

    Args:
      saved: states of the run; make them with `writes=False` to change nothing.
      stage: one of the stages of the run.

    Returns:
      The trainer of the stage; its initial state, in the checkpoint layout (leaves lead
      with the replicate axis, counters are scalars); and the keys of its example order
      and augmentation [r].

    Raises:
      LostState: if the state of an earlier stage is missing.
      CorruptFile: if it is corrupt.
    """
    trainer = stage_trainer(saved, stage)
    state = start_state(saved, stage, stage_masks(saved, stage))
    return trainer, state, stage_keys(saved, stage)
