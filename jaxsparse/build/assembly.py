"""From a config and its data to the experiment that runs."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import hosts
from jaxsparse.build import (
    earlier,
    fitting,
    functions,
    ghosts,
    measuring,
    networks,
    pieces,
    pretraining,
    stability,
)
from jaxsparse.build.lengths import Lengths, lengths, make_epoch, under
from jaxsparse.data import order
from jaxsparse.data.examples import Dataset, Examples
from jaxsparse.data.stored import StoredImages
from jaxsparse.lottery import children, levels, rewinding
from jaxsparse.lottery.network import Network, first_state
from jaxsparse.lottery.stages import Experiment
from jaxsparse.training import (
    epoch,
    evaluation,
    feeding,
    optimizers,
    placement,
    sharding,
    steps,
)
from jaxsparse.training import state as state_lib
from jaxsparse.training.epoch import Epoch
from jaxsparse.training.loop import Trainer
from jaxsparse.training.replicates import How
from jaxsparse.training.sharding import Layout

ORDERS_KEPT = 64  # epochs' orders of examples held on the devices


def _make_layout(config: ConfigDict, epoch_of: Epoch) -> Layout:
    sizes = [epoch_of.batch_size] * (epoch_of.steps > 1) + [epoch_of.last_batch]
    return sharding.make_layout(
        replicates=config.replicates,
        batch_sizes=sizes,
        parallelism=config.run.parallelism,
        devices=config.run.devices,
        division=_division(config),
    )


def _division(config: ConfigDict) -> sharding.Division | None:
    """Says how weights are divided over devices; None if they are not to be."""
    c = config.run
    if c.weights == "whole":
        return None
    return sharding.Division(tuple(map(tuple, c.weight_rules)), c.weight_least)


def _divided(network: Network, layout: Layout, seeds: state_lib.Seeds) -> Network:
    """Has states made divided over devices, without a weight that is whole on one."""
    if not layout.divides:
        return network
    like = jax.eval_shape(functools.partial(first_state, network), seeds)
    where = placement.state_shardings(layout, like)
    return network._replace(
        initialize=jax.jit(
            network.initialize, out_shardings=(where.params, where.batch_stats)
        ),
        place=functools.partial(placement.constrain, layout),
    )


class Arrangement(NamedTuple):
    """How the work of a call is laid out; no result depends on it but for last bits.

    Attributes:
      single: whether steps are dispatched one by one instead of scanned.
      how: how replicates are mapped, see `training.replicates`.
    """

    single: bool
    how: How


def arrange(config: ConfigDict, masks: Any) -> Arrangement:
    """Chooses what is fast on the devices there are, unless the config says.

    On CPUs gradients of convolutions are several times slower inside `lax.scan` or
    batched by vmap than outside, unless they are spelled out (`models.convolutions`),
    and products of small matrices slower batched than one by one.
    """
    convolves = any(leaf.ndim > 2 for leaf in jax.tree.leaves(masks))
    convolves &= not networks.spells_out(config)
    on_cpu = jax.default_backend() == "cpu"
    single, how = config.run.dispatch == "single", config.run.replicates_by
    if config.run.dispatch == "auto":
        single = convolves and on_cpu
    if how == "auto":
        how = "vmap" if not on_cpu else "unroll" if convolves else "map"
    return Arrangement(single, how)


def make_experiment(
    config: ConfigDict, dataset: Dataset, workdir: Path, *, per_example: bool = False
) -> Experiment:
    """Makes everything a run needs.

    Args:
      config: a validated config.
      dataset: what `load_data` read.
      workdir: folder of the run.
      per_example: whether steps tally each example, for `training.visits`; training
        itself cannot use that.

    Returns:
      The experiment.

    Raises:
      ValueError: if the parts do not fit together, naming the field to change.
    """
    c, s = config.lottery, config.sparse
    if s.growth_first + s.growth_examples > len(dataset.train.labels):
        raise ValueError(
            f"config.sparse.growth_examples: came {s.growth_examples} from "
            f"{s.growth_first} on; wanted at most the {len(dataset.train.labels)} "
            "training examples"
        )
    if not len(dataset.test.labels):
        raise ValueError(
            f"config.data.name: {config.data.name!r} has no test examples; expected "
            "some to report results on; add a test split"
        )
    epoch_of = make_epoch(config, len(dataset.train.labels))
    fitting.check_sizes(config, dataset)
    length = lengths(config, steps_per_epoch=epoch_of.steps)
    fitting.check_lengths(config, length)
    measuring.check_kept(length)
    ghosts.check_lengths(config, length)
    stability.check_steps(config, length)
    pretraining.check_used(config, length)
    plan = rewinding.Plan(length.rewind, length.total, c.retrain, length.finetune)
    rewinding.check(plan)
    layout = _make_layout(config, epoch_of)
    rate = pieces.make_rate(config, length)
    network = pieces.make_network(config, dataset, length)
    fitting.check_masks(config, network.masks)
    seeds = state_lib.make_seeds(**config.seeds, replicates=config.replicates)
    network = _divided(network, layout, seeds)
    network, origin = earlier.start_elsewhere(config, network, seeds, workdir)
    rule = levels.Rule(
        fraction=c.fraction,
        counting=c.counting,
        scope=c.scope,
        layer_fractions=tuple(tuple(pair) for pair in c.layer_fractions),
        ignored=tuple(c.ignored),
        score=c.score,
        min_layer_density=c.min_layer_density,
    )
    levels.check(rule, network.masks, levels=c.levels)
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
        control_levels=tuple(c.control_levels),
        one_shot=c.one_shot,
        fresh_order=config.data.order == "fresh",
        thin=config.run.keep == "needed",
        tickets=workdir / "tickets",
        repelled=jnp.dtype(config.repelling.dtype)
        if config.repelling.strength
        else None,
        pretrainer=_make_pretrainer(config, dataset, network, seeds, layout, workdir),
        children=_make_children(
            config, dataset, network, seeds, rate, epoch_of, length
        ),
    )


def _make_pretrainer(
    config: ConfigDict,
    dataset: Dataset,
    network: Network,
    seeds: state_lib.Seeds,
    layout: Layout,
    workdir: Path,
) -> Trainer | None:
    """Makes what trains up to the rewinding step, if that is something else."""
    if not pretraining.differs(config):
        return None
    c = pretraining.as_training(config)
    train = pretraining.labels(config, dataset)
    rows = pretraining.rows(config, dataset, workdir)
    count = len(train.labels) if rows is None else rows.shape[1]
    with under("pretraining"):
        epoch_of = make_epoch(c, count)
        layout = _make_layout(c, epoch_of)
    # Lengths in epochs are those of training, whatever an epoch is here.
    steps = make_epoch(config, len(dataset.train.labels)).steps
    length = lengths(c, steps_per_epoch=steps)
    made = pieces.make_network(c, dataset, length)
    trainer = _make_trainer(
        c,
        dataset._replace(train=train),
        network._replace(tx=made.tx),
        seeds,
        pieces.make_rate(c, length),
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
    network: Network,
    seeds: state_lib.Seeds,
    rate: optimizers.LearningRate,
    epoch_of: Epoch,
    length: Lengths,
) -> children.Children | None:
    """Makes what trains and compares children; None if the config wants none."""
    c = config.stability
    if not (c.children or c.successive):
        return None
    many = config.copy_and_resolve_references()
    many.replicates = config.replicates * max(1, c.children)
    many.analysis = config_lib.default().analysis
    keys = children.copies(jax.tree.map(jax.random.clone, seeds), max(1, c.children))
    plain = length._replace(gradient_every=0, keep_at=())
    layout = _make_layout(many, epoch_of)
    trainer = _make_trainer(
        many, dataset, network, keys, rate, layout, epoch_of, plain, {}
    )
    stats = jax.eval_shape(network.initialize, seeds.init)[1]
    like = state_lib.of_one(stats)
    return children.Children(
        trainer=trainer,
        count=c.children,
        steps=length.stability_steps,
        levels=tuple(c.levels),
        successive=c.successive,
        compare=stability.make_compare(config, dataset, like),
        judge=stability.judge,
    )


def _make_trainer(
    config: ConfigDict,
    dataset: Dataset,
    network: Network,
    seeds: state_lib.Seeds,
    rate: optimizers.LearningRate,
    layout: Layout,
    epoch_of: Epoch,
    length: Lengths,
    origin: dict[str, Any],
    *,
    per_example: bool = False,
) -> Trainer:
    axis_name = layout.batch_axis
    model = networks.make_model(
        config, classes=dataset.classes, axis_name=axis_name, training=True
    )
    normalize = pieces.make_normalize(config, dataset)
    haunt = ghosts.make_haunt(config, length, axis_name=axis_name)
    like = jax.eval_shape(functools.partial(first_state, network), seeds)
    gather = placement.make_gather(layout, like)
    train_step = steps.make_train_step(
        model,
        network.tx,
        augment=pieces.make_augment(config),
        normalize=normalize,
        haunt=haunt,
        label_smoothing=ghosts.make_smoothing(config, length),
        smooth_over=config.training.smooth_over,
        repulsion=config.repelling.strength,
        axis_name=axis_name,
        gather=gather,
        per_example=per_example,
    )
    stats = state_lib.of_one(like.batch_stats)
    analysed = functions.make_functions(config, dataset, stats)
    plain = networks.make_model(config, classes=dataset.classes, axis_name=axis_name)
    eval_step = steps.make_eval_step(
        plain, normalize=normalize, haunt=haunt, gather=gather
    )
    sets = {"validation": dataset.validation, "test": dataset.test}
    where = _where(config, dataset, layout)
    arrangement = arrange(config, network.masks)
    per_call = 1 if arrangement.single else config.run.steps_per_call
    if where == "host":
        per_call = feeding.steps_per_call(
            dataset.train,
            wanted=min(per_call, epoch_of.steps),
            batch_size=epoch_of.batch_size,
            replicates=config.replicates,
        )
    # A loop over replicates would move those of other devices.
    apart = arrangement.how if layout.mesh.size == 1 else "vmap"
    how = apart if layout.divides else arrangement.how
    # Forced host devices hang if many calls with collectives are in flight.
    waits = jax.default_backend() == "cpu" and layout.mesh.size > 1
    return Trainer(
        programs=epoch.make_programs(
            train_step,
            like,
            layout=layout,
            how=how,
            usual_length=per_call,
            examples=where,
        ),
        feed=feeding.make_feed(
            dataset.train,
            _make_order(layout, len(dataset.train.labels)),
            layout=layout,
            where=where,
            lengths=functools.partial(epoch.room, usual_length=per_call),
            growth=feeding.growth_examples(
                layout,
                dataset.train,
                first=config.sparse.growth_first,
                count=config.sparse.growth_examples,
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
        calls_ahead=1 if waits else feeding.IN_FLIGHT if where == "host" else 64,
        learning_rate=rate,
        arrangement={
            "convolutions": "explicit" if networks.spells_out(config) else "library",
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
        observer=measuring.make_observer(
            config, dataset, analysed.loss, length, how=apart
        ),
        keep_at=length.keep_at,
        settled=length.ghosts if ghosts.fade(config) else 0,
        trace=length.trace,
        continues=config.run.on_nonfinite == "continue",
    )


def _is_streamed(where: epoch.Where, examples: Examples, layout: Layout) -> bool:
    """Says whether examples to evaluate on are brought to the devices each time."""
    if where == "sharded":  # these are fewer, and are not divided
        return hosts.tell(lambda: feeding.choose(examples, layout) != "device")
    return where == "host"


def _where(config: ConfigDict, dataset: Dataset, layout: Layout) -> epoch.Where:
    """Says where training examples lie."""
    asked = config.run.examples
    if asked == "auto":
        return hosts.tell(lambda: feeding.choose(dataset.train, layout))
    if isinstance(dataset.train.images, StoredImages) and asked != "host":
        raise ValueError(
            f"config.run.examples: came {asked!r} with data.size {config.data.size}, "
            "for which images stay in files; wanted 'host' or 'auto', or data.size 0 "
            "for a set that fits into memory"
        )
    if asked == "sharded" and layout.data_devices == 1:
        raise ValueError(
            "config.run.examples: came 'sharded' where no two devices share a batch "
            f"({dict(layout.mesh.shape)}); wanted 'device' or 'host'"
        )
    return asked


def _make_order(layout: Layout, examples: int, rows: Any = None) -> Callable[..., Any]:
    """Makes the order of so many examples; of these rows [r examples], if given."""

    def one(key: Any, number: Any, mine: Any) -> Any:
        places = order.epoch_order(key, epoch=number, examples=examples)
        return places if mine is None else mine[places]

    every = jax.vmap(one, in_axes=(0, None, None if rows is None else 0))
    draw = jax.jit(lambda keys, number: every(keys, number, rows))
    recent: dict[tuple[bytes, int], Any] = {}

    def make(keys: Any, number: int) -> Any:
        # Levels and controls see the same orders again, and drawing one takes long.
        name = (np.asarray(jax.random.key_data(keys)).tobytes(), number)
        if name not in recent:
            if len(recent) == ORDERS_KEPT:
                del recent[next(iter(recent))]
            recent[name] = sharding.by_replicate(layout, draw(keys, number))
        return recent[name]

    return make
