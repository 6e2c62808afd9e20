"""Makes the experiment of a config: trainers, stages and their settings."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import multihost
from jaxsparse.data import shuffling
from jaxsparse.data.dataset import Dataset, Examples
from jaxsparse.data.image_files import StoredImages
from jaxsparse.factory import (
    components,
    eval_fns,
    instability,
    models,
    probes,
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
from jaxsparse.lottery import imp, rewinding
from jaxsparse.lottery import instability as instability_lib
from jaxsparse.lottery.stages import Experiment
from jaxsparse.lottery.task import TrainTask, first_state
from jaxsparse.training import (
    evaluation,
    input_pipeline,
    mesh,
    optimizers,
    scan_chunks,
    state_sharding,
    steps,
)
from jaxsparse.training import state as state_lib
from jaxsparse.training.mesh import MeshLayout
from jaxsparse.training.scan_chunks import EpochSpec
from jaxsparse.training.train import Trainer
from jaxsparse.training.vmap_seeds import How

ORDERS_KEPT = 64  # epochs whose example order is cached on the devices


def _make_layout(config: ConfigDict, epoch_of: EpochSpec) -> MeshLayout:
    """Makes the device mesh for the batch sizes of an epoch.

    Args:
      config: a validated config.
      epoch_of: number of steps and batch sizes of an epoch.
    """
    # An epoch of one step has no full batch, only a last one.
    sizes = [epoch_of.batch_size] * (epoch_of.steps > 1) + [epoch_of.last_batch]
    return mesh.make_layout(
        replicates=config.replicates,
        batch_sizes=sizes,
        parallelism=config.run.parallelism,
        devices=config.run.devices,
        fsdp=_division(config),
    )


def _division(config: ConfigDict) -> mesh.FSDPSpec | None:
    """Returns how parameters are sharded over devices; None to keep them whole."""
    c = config.run
    if not c.fsdp:
        return None
    return mesh.FSDPSpec(tuple(map(tuple, c.fsdp_rules)), c.fsdp_min_size)


def _divided(
    network: TrainTask, layout: MeshLayout, seeds: state_lib.Seeds
) -> TrainTask:
    """Makes a network initialize its states sharded.

    No device ever holds a whole copy of a sharded parameter, not even during
    initialization.

    Args:
      network: what is trained.
      layout: mesh of devices and placement of arrays on it.
      seeds: random keys of all replicates.

    Returns:
      The network; unchanged if parameters are not sharded.

    Raises:
      ValueError: if a sharding rule does not fit the weights; the message names the
        config field.
    """
    if layout.division is None:
        return network
    like = jax.eval_shape(functools.partial(first_state, network), seeds)
    # Also on one device, where nothing is sharded: it checks the rules.
    where = state_sharding.state_shardings(layout, like)
    if not layout.divides:
        return network
    return network._replace(
        initialize=jax.jit(
            network.initialize, out_shardings=(where.params, where.batch_stats)
        ),
        place=functools.partial(state_sharding.constrain, layout),
    )


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
    scan, how = config.run.scan, config.run.replicate_mode
    single = convolves and on_cpu if scan is None else not scan
    if how == "auto":
        how = "vmap" if not on_cpu else "unroll" if convolves else "map"
    return ExecutionPlan(single, how)


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
    c, s = config.lottery, config.sparse
    if s.grow_batch_start + s.grow_batch_size > len(dataset.train.labels):
        raise ValueError(
            f"config.sparse.grow_batch_size: came {s.grow_batch_size} from "
            f"{s.grow_batch_start} on; wanted at most the {len(dataset.train.labels)} "
            "training examples"
        )
    if not len(dataset.test.labels):
        raise ValueError(
            f"config.data.name: {config.data.name!r} has no test examples; expected "
            "some to report results on; add a test split"
        )
    epoch_of = make_epoch(config, len(dataset.train.labels))
    size_checks.check_sizes(config, dataset)
    length = make_durations(config, steps_per_epoch=epoch_of.steps)
    size_checks.check_lengths(config, length)
    probes.check_kept(length)
    tost.check_lengths(config, length)
    instability.check_steps(config, length)
    pretraining_lib.check_used(config, length)
    plan = rewinding.RewindPlan(length.rewind, length.total, c.retrain, length.finetune)
    rewinding.check(plan)
    layout = _make_layout(config, epoch_of)
    rate = components.make_rate(config, length)
    network = components.make_network(config, dataset, length)
    size_checks.check_masks(config, network.masks)
    seeds = state_lib.make_seeds(**config.seeds, replicates=config.replicates)
    params, _ = jax.eval_shape(network.initialize, seeds.init)
    size_checks.check_memory(config, params, layout)
    network = _divided(network, layout, seeds)
    network, origin = warm_start.apply_warm_start(config, network, seeds, workdir)
    rule = imp.PruningRule(
        fraction=c.fraction,
        count_rule=c.count_rule,
        scope=c.scope,
        layer_fractions=tuple(tuple(pair) for pair in c.layer_fractions),
        exclude=tuple(c.exclude),
        score=c.score,
        min_layer_density=c.min_layer_density,
    )
    imp.check(rule, network.masks, levels=c.levels)
    return Experiment(
        trainer=_make_trainer(
            *(config, dataset, network, seeds, rate, layout, epoch_of, length, origin),
            per_example=per_example,
        ),
        network=network,
        seeds=seeds,
        plan=plan,
        rule=rule,
        levels=c.levels,
        controls=tuple(c.controls),
        control_levels=tuple(c.control_levels or ()),
        one_shot=c.one_shot,
        fresh_order=config.data.reshuffle_each_level,
        thin=config.run.keep_checkpoints == "needed",
        tickets=workdir / "tickets",
        repelled=jnp.dtype(config.solution_penalty.dtype)
        if config.solution_penalty.strength
        else None,
        pretrainer=_make_pretrainer(config, dataset, network, seeds, layout, workdir),
        children=_make_children(
            config, dataset, network, seeds, rate, epoch_of, length
        ),
    )


def _make_pretrainer(
    config: ConfigDict,
    dataset: Dataset,
    network: TrainTask,
    seeds: state_lib.Seeds,
    layout: MeshLayout,
    workdir: Path,
) -> Trainer | None:
    """Makes the trainer for the steps before the rewinding step.

    Args:
      config: a validated config.
      dataset: the dataset.
      network: what is trained after the rewinding step.
      seeds: random keys of all replicates.
      layout: device mesh of the training after the rewinding step.
      workdir: the run directory, to which the path of a score file is relative.

    Returns:
      The trainer; None if the pretraining does not differ from training.
    """
    if not pretraining_lib.differs(config):
        return None
    c = pretraining_lib.as_training(config)
    train = pretraining_lib.labels(config, dataset)
    rows = pretraining_lib.rows(config, dataset, workdir)
    count = len(train.labels) if rows is None else rows.shape[1]
    with config_context("pretraining"):
        epoch_of = make_epoch(c, count)
        layout = _make_layout(c, epoch_of)
    # Durations in epochs refer to epochs of training, even if the pretraining has fewer
    # examples or other batches.
    steps = make_epoch(config, len(dataset.train.labels)).steps
    length = make_durations(c, steps_per_epoch=steps)
    made = components.make_network(c, dataset, length)
    trainer = _make_trainer(
        c,
        dataset._replace(train=train),
        # Compared with `network`, only the optimizer differs: its learning rate.
        network._replace(tx=made.tx),
        seeds,
        components.make_rate(c, length),
        layout,
        epoch_of,
        length,
        {},
    )
    if rows is None:
        return trainer
    chosen = trainer.feed._replace(make_order=_make_order(layout, count, rows))
    return trainer._replace(feed=chosen)


def _make_children(
    config: ConfigDict,
    dataset: Dataset,
    network: TrainTask,
    seeds: state_lib.Seeds,
    rate: optimizers.LearningRate,
    epoch_of: EpochSpec,
    length: Durations,
) -> instability_lib.InstabilityAnalysis | None:
    """Makes the instability analysis of a config; None if it has none.

    Args:
      config: a validated config.
      dataset: the dataset.
      network: what is trained.
      seeds: random keys of all replicates.
      rate: learning rate as a function of the training step.
      epoch_of: number of steps and batch sizes of an epoch.
      length: durations of the config in steps.
    """
    c = config.instability
    if not (c.copies or c.compare_levels):
        return None
    # All children train in parallel, as replicates of one trainer. They are not
    # measured during training, and no states of them are saved.
    many = config.copy_and_resolve_references()
    many.replicates = config.replicates * max(1, c.copies)
    many.analysis = config_lib.default().analysis
    copied = jax.tree.map(jax.random.clone, seeds)
    keys = instability_lib.copies(copied, max(1, c.copies))
    plain = length._replace(gradient_every=0, keep_at=())
    layout = _make_layout(many, epoch_of)
    trainer = _make_trainer(
        many, dataset, network, keys, rate, layout, epoch_of, plain, {}
    )
    stats = jax.eval_shape(network.initialize, seeds.init)[1]
    like = state_lib.of_one(stats)
    return instability_lib.InstabilityAnalysis(
        trainer=trainer,
        count=c.copies,
        steps=length.stability_steps,
        levels=tuple(c.levels),
        successive=c.compare_levels,
        compare=instability.make_compare(config, dataset, like),
        judge=instability.judge,
    )


def _make_trainer(
    config: ConfigDict,
    dataset: Dataset,
    network: TrainTask,
    seeds: state_lib.Seeds,
    rate: optimizers.LearningRate,
    layout: MeshLayout,
    epoch_of: EpochSpec,
    length: Durations,
    origin: dict[str, Any],
    *,
    per_example: bool = False,
) -> Trainer:
    """Makes the settings and compiled functions that stages share.

    Args:
      config: a validated config.
      dataset: the dataset.
      network: what is trained.
      seeds: random keys of all replicates of this trainer.
      rate: learning rate as a function of the training step.
      layout: mesh of devices and placement of arrays on it.
      epoch_of: number of steps and batch sizes of an epoch.
      length: durations of the config in steps.
      origin: hashes of the files that a warm start takes weights, masks or scores from,
        for the record; {} without a warm start.
      per_example: whether steps return the correctness of each example.
    """
    axis_name = layout.batch_axis
    model = models.make_model(
        config, classes=dataset.classes, axis_name=axis_name, training=True
    )
    normalize = components.make_normalize(config, dataset)
    haunt = tost.make_annealed_model(config, length, axis_name=axis_name)
    like = jax.eval_shape(functools.partial(first_state, network), seeds)
    gather = state_sharding.make_gather(layout, like)
    train_step = steps.make_train_step(
        model,
        network.tx,
        augment=components.make_augment(config),
        normalize=normalize,
        annealed=haunt,
        label_smoothing=tost.make_smoothing(config, length),
        smooth_over=config.training.smoothing_target,
        penalty=config.solution_penalty.strength,
        axis_name=axis_name,
        gather=gather,
        per_example=per_example,
    )
    stats = state_lib.of_one(like.batch_stats)
    analyzed = eval_fns.make_eval_fns(config, dataset, stats)
    plain = models.make_model(config, classes=dataset.classes, axis_name=axis_name)
    eval_step = steps.make_eval_step(
        plain, normalize=normalize, annealed=haunt, gather=gather
    )
    sets = {"validation": dataset.validation, "test": dataset.test}
    where = _where(config, dataset, layout)
    arrangement = make_execution_plan(config, network.masks)
    per_call = 1 if arrangement.single else config.run.steps_per_call
    if where == "host":
        per_call = input_pipeline.steps_per_call(
            dataset.train,
            wanted=min(per_call, epoch_of.steps),
            batch_size=epoch_of.batch_size,
            replicates=config.replicates,
        )
    # Outside of `shard_map`, a loop over replicates would transfer them between
    # devices. Training runs inside of it unless parameters are sharded.
    apart = arrangement.how if layout.mesh.size == 1 else "vmap"
    how = apart if layout.divides else arrangement.how
    # CPU devices made with --xla_force_host_platform_device_count hang if many calls
    # with collectives are in flight.
    waits = jax.default_backend() == "cpu" and layout.mesh.size > 1
    return Trainer(
        programs=scan_chunks.make_chunk_fns(
            train_step,
            like,
            layout=layout,
            how=how,
            usual_length=per_call,
            examples=where,
        ),
        feed=input_pipeline.make_feed(
            dataset.train,
            _make_order(layout, len(dataset.train.labels)),
            layout=layout,
            where=where,
            lengths=functools.partial(scan_chunks.room, usual_length=per_call),
            growth=input_pipeline.grow_batch_size(
                layout,
                dataset.train,
                first=config.sparse.grow_batch_start,
                count=config.sparse.grow_batch_size,
            ),
        ),
        evaluate={
            name: evaluation.make_evaluate(
                eval_step,
                like,
                *examples,
                batch_size=config.evaluation.batch_size,
                layout=layout,
                how=apart,
                streamed=_is_streamed(where, examples, layout),
            )
            for name, examples in sets.items()
            if len(examples.labels)
        },
        layout=layout,
        epoch=epoch_of,
        steps_per_call=per_call,
        evaluate_every=length.evaluate_every,
        checkpoint_every=length.checkpoint_every,
        # With examples on the host, each chunk in flight holds its images in device
        # memory.
        calls_ahead=1 if waits else input_pipeline.IN_FLIGHT if where == "host" else 64,
        learning_rate=rate,
        arrangement={
            "convolutions": "explicit"
            if models.uses_custom_conv_grads(config)
            else "library",
            "steps": "single" if arrangement.single else "scan",
            "replicates_by": how,
            "parallelism": layout.parallelism,
            "mesh": dict(layout.mesh.shape),
            **({"weights": "sharded"} if layout.divides else {}),
            **({} if where == "device" else {"examples": where}),
            **({"starts_from": origin} if origin else {}),
        },
        changing=network.masks
        if config_lib.METHODS.find(config.sparse.method).updates_masks
        else None,
        observer=probes.make_probe(config, dataset, analyzed.loss, length, how=apart),
        keep_at=length.keep_at,
        settled=length.ghosts if tost.tost_strength(config) else 0,
        trace=length.trace,
        continues=config.run.on_nonfinite == "continue",
    )


def _is_streamed(
    where: scan_chunks.Where, examples: Examples, layout: MeshLayout
) -> bool:
    """Returns whether each evaluation copies its examples from the host.

    Args:
      where: where training examples are stored.
      examples: examples of the evaluated set.
      layout: mesh of devices and placement of arrays on it.
    """
    if where == "sharded":  # evaluation sets are smaller and never sharded
        # The primary process decides, because devices of other hosts may report other
        # amounts of memory.
        return multihost.broadcast_from_primary(
            lambda: input_pipeline.choose(examples, layout) != "device"
        )
    return where == "host"


def _where(
    config: ConfigDict, dataset: Dataset, layout: MeshLayout
) -> scan_chunks.Where:
    """Returns where training examples are stored: "device", "sharded" or "host".

    Args:
      config: a validated config.
      dataset: the dataset.
      layout: mesh of devices and placement of arrays on it.

    Raises:
      ValueError: if the placement that the config requests is impossible.
    """
    asked = config.run.data_placement
    if asked == "auto":
        return multihost.broadcast_from_primary(
            lambda: input_pipeline.choose(dataset.train, layout)
        )
    if isinstance(dataset.train.images, StoredImages) and asked != "host":
        raise ValueError(
            "config.run.data_placement: expected 'host' or 'auto' with data.image_size "
            f"{config.data.image_size}, for which images stay in files, got {asked!r}; "
            "set data.image_size 0 for a dataset that fits into memory"
        )
    if asked == "sharded" and layout.data_devices == 1:
        raise ValueError(
            "config.run.data_placement: expected 'device' or 'host' where no two "
            f"devices share a batch ({dict(layout.mesh.shape)}), got 'sharded'; leave "
            "the field out"
        )
    return asked


def _make_order(
    layout: MeshLayout, examples: int, rows: Any = None
) -> Callable[..., Any]:
    """Makes the function that draws the order of the examples in an epoch.

    Args:
      layout: mesh of devices and placement of arrays on it.
      examples: number of examples per epoch.
      rows: example indices to train on, int [r examples]; None for all examples.

    Returns:
      A function of keys [r] and the number of an epoch to example indices [r examples],
      sharded by replicate.
    """

    def one(key: Any, number: Any, mine: Any) -> Any:
        places = shuffling.epoch_order(key, epoch=number, examples=examples)
        return places if mine is None else mine[places]

    every = jax.vmap(one, in_axes=(0, None, None if rows is None else 0))
    draw = jax.jit(lambda keys, number: every(keys, number, rows))
    recent: dict[tuple[bytes, int], Any] = {}

    def make(keys: Any, number: int) -> Any:
        # Cached, because levels and controls use the same orders again and drawing one
        # is slow.
        name = (np.asarray(jax.random.key_data(keys)).tobytes(), number)
        if name not in recent:
            if len(recent) == ORDERS_KEPT:
                del recent[next(iter(recent))]
            recent[name] = mesh.shard_replicates(layout, draw(keys, number))
        return recent[name]

    return make
