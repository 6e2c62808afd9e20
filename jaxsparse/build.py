"""From a config to the objects of a run; the only tables of names.

To add a network, write a linen module (see `models`) and name it in `MODELS`. To add
a dataset, see `data.datasets`. Everything a config can get wrong is refused here or
in `config.validate`, before anything is compiled.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import initializers, models, schedules, transforms
from jaxsparse import masks as masks_lib
from jaxsparse.data import augment, datasets, order
from jaxsparse.data.examples import Dataset
from jaxsparse.lottery import controls, levels, rewinding
from jaxsparse.lottery.experiment import Experiment, Network
from jaxsparse.training import epoch, evaluation, optimizers, sharding, steps
from jaxsparse.training import state as state_lib
from jaxsparse.training.epoch import Epoch
from jaxsparse.training.loop import Trainer
from jaxsparse.training.sharding import Layout

ModelFactory = Callable[..., nn.Module]


def _resnet(depth: int) -> ModelFactory:
    return lambda width, norm, **rest: models.CifarResNet(
        depth=depth, width=width, norm=norm, **rest
    )


def _plain(module: Callable[..., nn.Module], **fields: Any) -> ModelFactory:
    return lambda width, norm, **rest: module(**fields, **rest)


# Called with `classes`, `dtype`, `width` and `norm`.
MODELS: dict[str, ModelFactory] = {
    "lenet_300_100": _plain(models.LeNet300100),
    "lenet_5": _plain(models.LeNet5),
    "lenet_5_caffe": _plain(models.LeNet5Caffe),
    "conv_2": _plain(models.ConvNet, depth=2),
    "conv_4": _plain(models.ConvNet, depth=4),
    "conv_6": _plain(models.ConvNet, depth=6),
    "resnet_20": _resnet(20),
    "resnet_32": _resnet(32),
    "resnet_44": _resnet(44),
    "resnet_56": _resnet(56),
    "resnet_110": _resnet(110),
}

OPTIMIZERS = ("sgd", "adam", "adamw")


class Lengths(NamedTuple):
    """The config's lengths of training, in updates."""

    total: int
    warmup: int
    milestones: tuple[int, ...]
    rewind: int
    finetune: int
    evaluate_every: int
    checkpoint_every: int


def _look_up(field: str, name: str, known: Any) -> None:
    if name not in known:
        raise ValueError(
            f"config.{field}: unknown {name!r}; did you mean "
            f"{config_lib.nearest(name, list(known))}?"
        )


@contextmanager
def _under(field: str) -> Iterator[None]:
    """Puts the place in the config before the message of what goes wrong inside."""
    try:
        yield
    except datasets.sources.DatasetNotPrepared:
        raise
    except ValueError as error:
        raise ValueError(f"config.{field}: {error}") from error


def check_names(config: ConfigDict) -> None:
    """Refuses names that no table here has, with the nearest that one has.

    Raises:
      ValueError: naming the field.
    """
    _look_up("model.name", config.model.name, MODELS)
    _look_up("optimizer.name", config.optimizer.name, OPTIMIZERS)
    _look_up("init.kernel", config.init.kernel, initializers.KERNELS)
    _look_up("init.bias", config.init.bias, initializers.BIASES)
    _look_up("init.norm_scale", config.init.norm_scale, initializers.NORM_SCALES)
    for name in config.lottery.controls:
        _look_up("lottery.controls", name, controls.NAMES)
    lengths(config, steps_per_epoch=10**9)  # only whether they can be read


def lengths(config: ConfigDict, *, steps_per_epoch: int) -> Lengths:
    """Reads the lengths of a config.

    Raises:
      ValueError: naming the field that cannot be read, or that comes to nothing.
    """

    def read(field: str, text: str, total: int | None = None) -> int:
        with _under(field):
            return schedules.to_steps(
                text, steps_per_epoch=steps_per_epoch, total=total
            )

    total = read("training.length", config.training.length)
    every = read("evaluation.every", config.evaluation.every, total)
    if every < 1:
        raise ValueError(
            f"config.evaluation.every: came {config.evaluation.every!r}, which is "
            f"{every} updates; wanted at least 1"
        )
    checkpoint = config.run.checkpoint_every
    return Lengths(
        total=total,
        warmup=read("schedule.warmup", config.schedule.warmup, total),
        milestones=tuple(
            read("schedule.milestones", text, total)
            for text in config.schedule.milestones
        ),
        rewind=read("lottery.rewind", config.lottery.rewind, total),
        finetune=read("lottery.finetune_length", config.lottery.finetune_length, total),
        evaluate_every=every,
        checkpoint_every=read("run.checkpoint_every", checkpoint, total)
        if checkpoint
        else 0,
    )


def load_data(config: ConfigDict) -> Dataset:
    """Reads the dataset of a config onto the host.

    Raises:
      ValueError: if it is not there, or smaller than what is asked of it.
    """
    c = config.data
    with _under("data"):
        return datasets.load(
            c.name,
            data_dir=c.dir or None,
            validation=c.validation,
            split_seed=c.split_seed,
            train_examples=c.train_examples or None,
            test_examples=c.test_examples or None,
        )


def make_model(
    config: ConfigDict, *, classes: int, axis_name: str | None = None
) -> nn.Module:
    """Makes the network of a config; `axis_name` is for BatchNorm, see `sharding`."""
    norm = functools.partial(
        nn.BatchNorm, momentum=0.9, epsilon=1e-5, axis_name=axis_name
    )
    return MODELS[config.model.name](
        classes=classes,
        dtype=None if config.model.dtype == "float32" else config.model.dtype,
        width=config.model.width,
        norm=norm,
    )


def make_optimizer(config: ConfigDict, rate: optimizers.LearningRate) -> Any:
    """Makes the dense optimiser of a config."""
    c = config.optimizer
    decays = None if c.decay == "all" else optimizers.kernels_only
    if c.name == "adamw":
        return optimizers.adamw(
            rate,
            b1=c.b1,
            b2=c.b2,
            eps=c.eps,
            weight_decay=c.weight_decay,
            decays=decays,
        )
    if c.name == "adam":
        plain = optimizers.adam(rate, b1=c.b1, b2=c.b2, eps=c.eps)
    else:
        plain = optimizers.sgd(rate, momentum=c.momentum, nesterov=c.nesterov)
    return optimizers.with_l2(plain, weight_decay=c.weight_decay, decays=decays)


def make_network(config: ConfigDict, dataset: Dataset, tx: Any) -> Network:
    """Makes what is trained: how it is initialised, and its dense masks."""
    model = make_model(config, classes=dataset.classes)
    image = jnp.zeros((1, *dataset.train.images.shape[1:]), jnp.float32)
    like = jax.eval_shape(
        lambda key: model.init(key, image, train=False), jax.random.key(0)
    )
    draw = functools.partial(
        initializers.initialize,
        like["params"],
        kernel=config.init.kernel,
        bias=config.init.bias,
        norm_scale=config.init.norm_scale,
    )

    def one(key: Any) -> tuple[Any, Any]:
        stats = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.full(
                leaf.shape, masks_lib.name_of(path).endswith("var"), leaf.dtype
            ),
            like.get("batch_stats", {}),
        )
        return draw(key=key), stats

    return Network(jax.jit(jax.vmap(one)), tx, masks_lib.dense(like["params"]))


def make_augment(config: ConfigDict) -> steps.Augment | None:
    """Makes the random changes of training images; None for none."""
    pad, flip = config.data.crop_pad, config.data.flip
    if not pad and not flip:
        return None

    def change(images: Any, *, key: Any, places: Any) -> Any:
        crop_key, flip_key = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
        if pad:
            images = augment.random_crop(images, pad=pad, key=crop_key, places=places)
        if flip:
            images = augment.random_flip(images, key=flip_key, places=places)
        return images

    return change


def _make_layout(config: ConfigDict, epoch_of: Epoch) -> Layout:
    sizes = [epoch_of.batch_size] * (epoch_of.steps > 1) + [epoch_of.last_batch]
    return sharding.make_layout(
        replicates=config.replicates,
        batch_sizes=sizes,
        parallelism=config.run.parallelism,
        devices=config.run.devices,
    )


def _make_epoch(config: ConfigDict, examples: int) -> Epoch:
    c = config.data
    with _under("data"):
        count = order.steps_per_epoch(
            examples, batch_size=c.batch_size, drop_last=c.drop_last
        )
    last = c.batch_size if c.drop_last else examples - (count - 1) * c.batch_size
    return Epoch(count, c.batch_size, last)


def calls_single_steps(config: ConfigDict, masks: Any) -> bool:
    """Says whether steps are dispatched one by one instead of scanned.

    On CPUs convolutions inside `lax.scan` run several times slower than outside.
    """
    if config.run.dispatch != "auto":
        return config.run.dispatch == "single"
    convolves = any(leaf.ndim > 2 for leaf in jax.tree.leaves(masks))
    return convolves and jax.default_backend() == "cpu"


def make_experiment(config: ConfigDict, dataset: Dataset, workdir: Path) -> Experiment:
    """Makes everything a run needs.

    Args:
      config: a validated config.
      dataset: what `load_data` read.
      workdir: folder of the run.

    Returns:
      The experiment.

    Raises:
      ValueError: if the parts do not fit together, naming the field to change.
    """
    c = config.lottery
    epoch_of = _make_epoch(config, len(dataset.train.labels))
    length = lengths(config, steps_per_epoch=epoch_of.steps)
    plan = rewinding.Plan(length.rewind, length.total, c.retrain, length.finetune)
    rewinding.check(plan)
    layout = _make_layout(config, epoch_of)
    rate = optimizers.learning_rate(
        peak=config.schedule.learning_rate,
        total=length.total,
        warmup=length.warmup,
        decay=config.schedule.name,
        milestones=length.milestones,
        gamma=config.schedule.gamma,
    )
    tx = transforms.fixed(make_optimizer(config, rate))
    network = make_network(config, dataset, tx)
    rule = levels.Rule(
        fraction=c.fraction,
        counting=c.counting,
        scope=c.scope,
        layer_fractions=tuple(tuple(pair) for pair in c.layer_fractions),
        ignored=tuple(c.ignored),
        score=c.score,
    )
    levels.check(rule, network.masks)
    seeds = state_lib.make_seeds(**config.seeds, replicates=config.replicates)
    return Experiment(
        trainer=_make_trainer(config, dataset, network, rate, layout, epoch_of, length),
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
    )


def _make_trainer(
    config: ConfigDict,
    dataset: Dataset,
    network: Network,
    rate: optimizers.LearningRate,
    layout: Layout,
    epoch_of: Epoch,
    length: Lengths,
) -> Trainer:
    axis_name = layout.batch_axis
    model = make_model(config, classes=dataset.classes, axis_name=axis_name)
    normalize = functools.partial(augment.normalize, mean=dataset.mean, std=dataset.std)
    train_step = steps.make_train_step(
        model,
        network.tx,
        augment=make_augment(config),
        normalize=normalize,
        label_smoothing=config.training.label_smoothing,
        axis_name=axis_name,
    )
    like = _abstract_state(network, config.replicates)
    eval_step = steps.make_eval_step(model, normalize=normalize)
    sets = {"validation": dataset.validation, "test": dataset.test}
    images, labels = sharding.everywhere(
        layout, (dataset.train.images, dataset.train.labels)
    )
    single = calls_single_steps(config, network.masks)
    # Forced host devices hang if many calls with collectives are in flight.
    waits = jax.default_backend() == "cpu" and layout.mesh.size > 1
    return Trainer(
        programs=epoch.make_programs(train_step, like, layout=layout),
        make_order=_make_order(layout, len(dataset.train.labels)),
        images=images,
        labels=labels,
        evaluate={
            name: evaluation.make_evaluate(
                eval_step,
                like,
                *examples,
                batch_size=config.evaluation.batch_size,
                layout=layout,
            )
            for name, examples in sets.items()
            if len(examples.labels)
        },
        layout=layout,
        epoch=epoch_of,
        steps_per_call=1 if single else config.run.steps_per_call,
        evaluate_every=length.evaluate_every,
        checkpoint_every=length.checkpoint_every,
        calls_ahead=1 if waits else 64,
        learning_rate=rate,
    )


def _abstract_state(network: Network, replicates: int) -> state_lib.TrainState:
    def make() -> state_lib.TrainState:
        keys = jax.random.split(jax.random.key(0), replicates)
        params, stats = network.initialize(keys)
        masks = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (replicates, *leaf.shape)),
            network.masks,
        )
        return state_lib.start(network.tx, params, stats, masks, step=0, keys=keys)

    return jax.eval_shape(make)


def _make_order(layout: Layout, examples: int) -> Callable[..., Any]:
    draw = jax.jit(
        jax.vmap(
            lambda key, number: order.epoch_order(key, epoch=number, examples=examples),
            in_axes=(0, None),
        )
    )
    return lambda keys, number: sharding.by_replicate(layout, draw(keys, number))
