"""Chooses the masks with which stages start."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxsparse import multihost
from jaxsparse.lottery import controls, imp, particles, tickets
from jaxsparse.lottery import plan as plan_lib
from jaxsparse.runner import level_summary, records, task
from jaxsparse.runner.saved_states import SavedStates
from jaxsparse.stages import CHILDREN, PRETRAINING, TICKET, Stage
from jaxsparse.types import Masks


def stage_masks(saved: SavedStates, stage: Stage) -> Masks | None:
    """Returns the masks with which a stage starts, and chooses them if necessary.

    Args:
      saved: states of earlier stages.
      stage: the stage.

    Returns:
      Masks [r ...]; those of the parent for a stage of copies. None for the
      pretraining, which trains the initial state as it is.

    Raises:
      LostState: if the weights to prune by are missing or corrupt.
      ValueError: if a score is not finite, or open_lth's rule asks to remove more
        weights than there are.
    """
    if stage.variant == PRETRAINING:
        return None
    chosen = level_masks(saved, stage.level)
    if stage.variant in (TICKET, CHILDREN):
        return chosen
    return controls.masks_of(
        stage.variant,
        chosen,
        level=stage.level,
        keys=saved.experiment.seeds.masks,
        exclude=saved.plan.rule.exclude,
    )


def level_masks(saved: SavedStates, level: int) -> Masks:
    """Returns the masks of a level's ticket, and chooses them if necessary.

    Args:
      saved: states of earlier stages.
      level: level of iterative magnitude pruning, from 0.

    Returns:
      Masks [r ...].

    Raises:
      LostState: if the weights to prune by are missing or corrupt.
      ValueError: if a score is not finite, or open_lth's rule asks to remove more
        weights than there are.
    """
    experiment = saved.experiment
    count = experiment.trainer.layout.replicates
    if level == 0 and experiment.task.first_masks is None:
        return task.dense_masks(experiment.task.masks, count)
    folder, like = saved.run_dir.tickets, experiment.task.masks
    found = tickets.load_level(folder, level, like, replicates=count)
    if found is not None:
        return found
    chosen = _prune(saved, level) if level else _first_masks(saved)
    chosen = multihost.to_local(chosen)
    stage = f"masks of level {level}" if level else "initial masks"
    level_summary.warn_of_no_paths(chosen, experiment.task.count_effective, stage=stage)
    if saved.writes:
        tickets.save_level(folder, level, chosen, replicates=count)
    return chosen


def _first_masks(saved: SavedStates) -> Masks:
    """Chooses the masks of a method that is sparse from the start [r ...]."""
    source = plan_lib.weights_source(saved.plan, plan_lib.ticket(saved.plan, 0))
    start = saved.init if source is None else saved.at_step(*source)
    experiment = saved.experiment
    return experiment.task.first_masks(
        start.params, start.batch_stats, experiment.seeds
    )


def _prune(saved: SavedStates, level: int) -> Masks:
    """Prunes by the final weights of an earlier level.

    Args:
      saved: states of earlier stages.
      level: level of iterative magnitude pruning, at least 1.

    Returns:
      Masks [r ...].
    """
    experiment, source = saved.experiment, plan_lib.masks_source(saved.plan, level)
    end, before = saved.end_of(source), level_masks(saved, source.level)
    # Failed replicates stay in the arrays, but scores of their weights may be NaN.
    failed = records.failed_replicates(saved.run_dir, saved.plan, source)
    params, stats = _replace((end.params, end.batch_stats), failed, saved)
    mean = functools.partial(
        particles.average, particles=saved.plan.retraining.particles
    )
    params = mean(params)
    score, scores = experiment.task.level_scores, None
    if score is not None:
        stats = mean(stats)
        scores = mean(score(params, stats, before, experiment.seeds, level))
    return imp.prune(
        params,
        before,
        level=level,
        rule=saved.plan.rule,
        keys=experiment.seeds.masks,
        scores=scores,
    )


def _replace(ended: Any, failed: list[int], saved: SavedStates) -> Any:
    """Replaces what failed replicates ended with by the initial state of the run.

    Numbers that are not finite in that are replaced by 0.

    Args:
      ended: weights and batch statistics, arrays [r ...].
      failed: numbers of the replicates that had a non-finite loss.
      saved: states of earlier stages.
    """
    if not failed:
        return ended
    rows, begun = jnp.asarray(failed), (saved.init.params, saved.init.batch_stats)

    def one(new: Array, old: Array) -> Array:
        finite = jnp.nan_to_num(old[rows], nan=0.0, posinf=0.0, neginf=0.0)
        return new.at[rows].set(finite)

    return jax.tree.map(one, ended, begun)
