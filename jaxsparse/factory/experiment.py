"""Makes the experiment of a config: its trainers, stages and settings."""

from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse.data.dataset import Dataset
from jaxsparse.factory import (
    components,
    dense_run,
    device_layout,
    example_feed,
    instability,
    probes,
    score_checks,
    size_checks,
    tost,
    warm_start,
)
from jaxsparse.factory import (
    pretraining as pretraining_lib,
)
from jaxsparse.factory.durations import (
    Durations,
    config_context,
    make_durations,
    make_epoch,
)
from jaxsparse.factory.trainer import make_trainer
from jaxsparse.factory.trainer_parts import TrainerParts
from jaxsparse.lottery import imp, rewinding
from jaxsparse.lottery import instability as instability_lib
from jaxsparse.lottery.plan import Children, LotteryPlan
from jaxsparse.runner.experiment import Experiment, InstabilityAnalysis
from jaxsparse.training import state as state_lib
from jaxsparse.training.chunk_plan import EpochSpec
from jaxsparse.training.trainer import Trainer


def make_experiment(
    config: ConfigDict, dataset: Dataset, workdir: Path, *, per_example: bool = False
) -> Experiment:
    """Makes all parts of a run.

    Args:
      config: a validated config.
      dataset: the dataset, as `load_data` returned it.
      workdir: the run directory.
      per_example: whether steps return the correctness of each example, for
        `training.forgetting`. Such an experiment can only be replayed, not trained.

    Returns:
      The experiment.

    Raises:
      ValueError: if the parts do not fit together; the message names the config field.
    """
    _check_examples(config, dataset)
    epoch = make_epoch(config, len(dataset.train.labels))
    durations = _make_checked_durations(config, dataset, epoch)
    plan = make_plan(config, durations)
    rewinding.check(plan.retraining)
    instability.check_parents(config, plan)
    earlier = dense_run.find(config, dataset, workdir, plan, durations)
    layout = device_layout.make_layout(config, epoch)
    task = components.make_network(config, dataset, durations)
    size_checks.check_masks(config, task.masks)
    seeds = components.make_seeds(config)
    variables = jax.eval_shape(task.initialize, seeds.init)
    size_checks.check_memory(config, variables[0], layout)
    score_checks.check_registered(
        config, dataset, *state_lib.of_one(variables), task.masks
    )
    task = device_layout.shard_task(task, layout, seeds)
    task, origin = warm_start.apply_warm_start(config, task, seeds, workdir)
    imp.check(plan.rule, task.masks, levels=plan.levels)
    parts = TrainerParts(config, dataset, task, seeds, layout, epoch, durations)
    trainer = make_trainer(parts, per_example=per_example)
    if origin:
        described = {**trainer.execution_plan, "starts_from": origin}
        trainer = trainer._replace(execution_plan=described)
    penalty = config.solution_penalty
    return Experiment(
        trainer=trainer,
        task=task,
        seeds=seeds,
        plan=plan,
        pretrainer=_make_pretrainer(parts, workdir),
        instability=_make_instability(parts),
        penalty_dtype=jnp.dtype(penalty.dtype) if penalty.strength else None,
        delete_weights=config.run.keep_checkpoints == "needed",
        dense_run=earlier,
    )


def _check_examples(config: ConfigDict, dataset: Dataset) -> None:
    """Checks that there are enough training examples, and test examples.

    Raises:
      ValueError: if there are not; the message names the config field.
    """
    s = config.sparse
    if s.grow_batch_start + s.grow_batch_size > len(dataset.train.labels):
        raise ValueError(
            "config.sparse.grow_batch_size: expected at most the "
            f"{len(dataset.train.labels)} training examples, got {s.grow_batch_size} "
            f"from {s.grow_batch_start} on; use fewer"
        )
    if not len(dataset.test.labels):
        raise ValueError(
            "config.data.name: expected a dataset with test examples, got "
            f"{config.data.name!r}, which has none; add a test split"
        )


def _make_checked_durations(
    config: ConfigDict, dataset: Dataset, epoch: EpochSpec
) -> Durations:
    """Converts the durations of a config to steps, and checks that they fit together.

    Args:
      config: a validated config.
      dataset: the dataset.
      epoch: number of steps and batch sizes of an epoch.

    Raises:
      ValueError: if sizes or durations do not fit; the message names the config field.
    """
    size_checks.check_sizes(config, dataset)
    durations = make_durations(config, steps_per_epoch=epoch.steps)
    size_checks.check_lengths(config, durations)
    probes.check_kept(durations)
    tost.check_lengths(config, durations)
    instability.check_steps(config, durations)
    pretraining_lib.check_used(config, durations)
    return durations


def make_plan(config: ConfigDict, durations: Durations) -> LotteryPlan:
    """Makes the plan that lists the stages of a run.

    Args:
      config: a validated config.
      durations: durations of the config in steps.
    """
    c, total = config.lottery, durations.total
    steps = durations.lottery
    return LotteryPlan(
        retraining=rewinding.RewindPlan(
            *(steps.rewind, total, c.retrain, steps.finetune, bool(c.dense_run)),
            particles=c.particles,
        ),
        rule=imp.PruningRule(
            fraction=c.fraction,
            count_rule=c.count_rule,
            scope=c.scope,
            layer_fractions=tuple(tuple(pair) for pair in c.layer_fractions),
            exclude=tuple(c.exclude),
            score=c.score,
            min_layer_density=c.min_layer_density,
        ),
        levels=c.levels,
        controls=tuple(c.controls),
        control_levels=tuple(c.control_levels or ()),
        one_shot=c.one_shot,
        reshuffle=config.data.reshuffle_each_level,
        children=Children(
            copies=config.instability.copies,
            start_steps=steps.children_start,
            levels=tuple(config.instability.levels),
        ),
    )


def _make_pretrainer(parts: TrainerParts, workdir: Path) -> Trainer | None:
    """Makes the trainer for the steps before the rewinding step.

    Args:
      parts: what the trainer after the rewinding step is made from.
      workdir: the run directory, to which the path of a score file is relative.

    Returns:
      The trainer; None if the pretraining does not differ from training.
    """
    config, dataset = parts.config, parts.dataset
    if not pretraining_lib.differs(config):
        return None
    c = pretraining_lib.as_training(config)
    train = pretraining_lib.labels(config, dataset)
    rows = pretraining_lib.rows(config, dataset, workdir)
    count = len(train.labels) if rows is None else rows.shape[1]
    with config_context("pretraining"):
        epoch = make_epoch(c, count)
        layout = device_layout.make_layout(c, epoch)
    # Durations in epochs refer to epochs of training, even if the pretraining has fewer
    # examples or other batches.
    durations = make_durations(c, steps_per_epoch=parts.epoch.steps)
    # Compared with training, only the optimizer differs: its learning rate.
    tx = components.make_network(c, dataset, durations).tx
    trainer = make_trainer(
        TrainerParts(
            config=c,
            dataset=dataset._replace(train=train),
            task=parts.task._replace(tx=tx),
            seeds=parts.seeds,
            layout=layout,
            epoch=epoch,
            durations=durations,
        )
    )
    if rows is None:
        return trainer
    order = example_feed.make_order(layout, count, rows)
    return trainer._replace(feed=trainer.feed._replace(make_order=order))


def _make_instability(parts: TrainerParts) -> InstabilityAnalysis | None:
    """Makes the instability analysis of a config; None if it has none.

    Args:
      parts: what the trainer of the parents is made from.
    """
    config, dataset = parts.config, parts.dataset
    c = config.instability
    if not (c.copies or c.compare_levels):
        return None
    # All copies train in parallel, as replicates of one trainer. They are not
    # measured during training, and no states of them are saved.
    many = config.copy_and_resolve_references()
    many.replicates = config.replicates * max(1, c.copies)
    many.analysis = config_lib.default().analysis
    copied = jax.tree.map(jax.random.clone, parts.seeds)
    intervals = parts.durations.intervals._replace(gradient_every=0, save_at=())
    trainer = make_trainer(
        parts._replace(
            config=many,
            seeds=instability_lib.copies(copied, max(1, c.copies)),
            layout=device_layout.make_layout(many, parts.epoch),
            durations=parts.durations._replace(intervals=intervals),
        )
    )
    stats = jax.eval_shape(parts.task.initialize, parts.seeds.init)[1]
    return InstabilityAnalysis(
        trainer=trainer,
        compare=instability.make_compare(config, dataset, state_lib.of_one(stats)),
        judge=instability.judge,
        compare_levels=c.compare_levels,
        with_parent=c.pairs == "parent",
    )
