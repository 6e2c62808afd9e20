"""Makes the parts of a run: network, optimizer, data and augmentation."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import initializers, multihost, tree
from jaxsparse import masks as masks_lib
from jaxsparse.data import augment, datasets, names
from jaxsparse.data import dataset as dataset_lib
from jaxsparse.data.dataset import Dataset
from jaxsparse.factory import gradinit, init_masks, methods, models, sparse_inits, tost
from jaxsparse.factory import pretraining as pretraining_lib
from jaxsparse.factory import scores as scores_lib
from jaxsparse.factory.durations import Durations, config_context
from jaxsparse.runner.task import StartWeights, TrainTask
from jaxsparse.training import optimizers, steps

OPTIMIZERS = ("sgd", "adam", "adamw")


def load_data(config: ConfigDict) -> Dataset:
    """Loads the dataset of a config into host memory; images may stay in files.

    All processes must call this together.

    Args:
      config: a validated config.

    Returns:
      The dataset, with training labels corrupted if `config.data.label_noise` says so.

    Raises:
      ValueError: if the dataset is missing, smaller than the config requires, or
        differs between processes.
    """
    dataset = multihost.run_on_all(lambda: _read_data(config))
    check_alike(config, dataset)
    train = pretraining_lib.with_noise(config, dataset.train, classes=dataset.classes)
    return dataset._replace(train=train)


def _read_data(config: ConfigDict) -> Dataset:
    """Loads the dataset of a config, without label noise."""
    c, own = config.data, config_lib.DATASETS.get(config.data.name)
    reader = published = None
    if own is None or own.load() is datasets.READERS.get(c.name):
        if not c.image_size:
            reader = datasets.make_reader(c.name, use_cache=c.use_cache)
    else:
        given = {field: c[field] for field in own.options}
        reader = functools.partial(own.load(), **given)
        published = (own.mean, own.std) if own.mean else None
    with config_context("data"):
        return datasets.load(
            c.name,
            reader=reader,
            published=published,
            data_dir=c.dir or None,
            size=c.image_size,
            validation=c.validation,
            split_seed=c.split_seed,
            examples=(c.train_examples or None, c.test_examples or None),
        )


def check_alike(config: ConfigDict, dataset: Dataset) -> None:
    """Checks that all hosts have the same dataset as the primary process.

    Args:
      config: a validated config.
      dataset: the dataset as this process loaded it. File names and labels are
        compared; pixels are not.

    Raises:
      ValueError: on all processes, if one differs; the message names the directory.
    """
    if not multihost.is_multiprocess():
        return
    own_hash = dataset_lib.digest(dataset)
    if not multihost.on_all(
        True if own_hash == multihost.broadcast_from_primary(lambda: own_hash) else None
    ):
        where = names.root_folder(config.data.dir or None)
        raise ValueError(
            f"config.data.dir: expected the same files and labels of "
            f"{config.data.name!r} on all hosts, got other ones in {where} here (hash "
            f"{own_hash[:8]}); copy the directory of one host to the others, or give a "
            "directory that they share"
        )


def make_optimizer(config: ConfigDict, rate: optimizers.LearningRate) -> Any:
    """Makes the dense optimizer of a config.

    Args:
      config: a validated config.
      rate: learning rate as a function of the training step.

    Returns:
      An optax transformation; `methods.make_wrap` makes it sparse.
    """
    c = config.optimizer
    decays = None if c.weight_decay_mask == "all" else optimizers.kernels_only
    # AdamW decouples weight decay from the gradient. The others add an L2 gradient,
    # before momentum and adaptive scaling.
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


def _shapes(config: ConfigDict, model: nn.Module, image: tuple[int, ...]) -> Any:
    """Returns the shapes of a network's variables for images [h w c].

    Args:
      config: a validated config, for the message.
      model: the network.
      image: height, width and channels of one image.

    Returns:
      The variables as `jax.ShapeDtypeStruct`, with "params" and possibly "batch_stats".

    Raises:
      ValueError: if a layer has no weights because strides and pooling have reduced the
        images to nothing.
    """
    one = jnp.zeros((1, *image), jnp.float32)
    try:
        like = jax.eval_shape(
            lambda key: model.init(key, one, train=False), jax.random.key(0)
        )
        empty = any(not leaf.size for leaf in jax.tree.leaves(like["params"]))
    except ZeroDivisionError:  # linen divides by a fan-in of 0
        empty = True
    if empty:
        raise ValueError(
            f"config.model.name: expected a network for images of shape {image}, got "
            f"{config.model.name!r}, whose strides and pooling leave nothing of them; "
            "choose another network, or larger images"
        )
    return like


def make_rate(config: ConfigDict, length: Durations) -> optimizers.LearningRate:
    """Makes the learning rate schedule of a config.

    Args:
      config: a validated config.
      length: durations of the config in steps.

    Returns:
      A function from the training step to the learning rate.
    """
    return optimizers.learning_rate(
        peak=config.schedule.learning_rate,
        total=length.total,
        warmup=length.schedule.warmup,
        decay=config.schedule.name,
        milestones=length.schedule.milestones,
        gamma=config.schedule.gamma,
    )


def make_network(config: ConfigDict, dataset: Dataset, length: Durations) -> TrainTask:
    """Makes the network's initialization, optimizer and masks.

    Args:
      config: a validated config.
      dataset: the dataset. Image size and number of classes determine the shapes; its
        examples are used by scores and by GradInit.
      length: durations of the config in steps.

    Returns:
      What `runner` trains.

    Raises:
      ValueError: if the parts do not fit together; the message names the config field.
    """
    model = models.make_model(config, classes=dataset.classes)
    image = dataset.train.images.shape[1:]
    models.check_images(config, image)
    annealed = tost.make_annealed_model(config, length)
    # Ghost skips have parameters, which must exist from the first step on.
    with_ghosts = model if annealed is None else annealed(model, 0, train=False)
    like = _shapes(config, with_ghosts, image)
    stats = like.get("batch_stats", {})
    draw = functools.partial(
        initializers.initialize,
        like["params"],
        kernel=config.init.kernel,
        bias=config.init.bias,
        norm_scale=config.init.norm_scale,
        zero_init=tuple(config.init.zero_init),
    )

    def one(key: Any) -> tuple[Any, Any]:
        # Running means start at 0 and running variances at 1, as in Flax.
        first = tree.map_with_names(
            lambda name, leaf: jnp.full(leaf.shape, name.endswith("var"), leaf.dtype),
            stats,
        )
        return tost.fill(draw(key=key)), first

    def every(keys: Any) -> tuple[Any, Any]:
        if config.init.shared:
            # A clone, because JAX's key-reuse checker counts the slice as a use.
            keys = jnp.broadcast_to(jax.random.clone(keys[:1]), keys.shape)
        return jax.vmap(one)(keys)

    # Two networks with the same parameters: `trained` may compute convolutions with
    # custom gradients that are faster on CPUs, `model` with the library's, which
    # `connectivity` can trace.
    trained = models.make_model(config, classes=dataset.classes, training=True)
    weights = like["params"]
    dense = init_masks.ends_kept_whole(config, model, weights, stats, image)
    rate = make_rate(config, length)
    axes = init_masks.layouts(model, weights, stats, image)
    wrap = methods.make_wrap(config, length, rate, dense=dense, axes=axes)
    tx = wrap(make_optimizer(config, rate), jax.random.key(config.seeds.masks))
    with config_context("sparse"):
        masks = masks_lib.ones(weights, prunable=methods.prunable(config))
        jax.eval_shape(tx.init, weights)  # raises errors early
    init_masks.check_masks(config, weights, dense=dense, axes=axes)
    redraw = sparse_inits.make_sparse_init(config, axes)
    if redraw is not None:
        with config_context("init"):
            jax.eval_shape(redraw, weights, masks, jax.random.key(0))
    return TrainTask(
        jax.jit(every),
        tx,
        masks,
        # Scores are computed with `precise=True`: in float32 even if activations are
        # bfloat16.
        first_masks=init_masks.make_init_masks(
            config,
            dataset,
            models.make_model(config, classes=dataset.classes, precise=True),
            make_normalize(config, dataset),
            wrap,
            dense=dense,
            axes=axes,
        ),
        start=StartWeights(
            fresh_weights=config.sparse.ablation == "reinitialized",
            redraw=redraw,
            rescale=gradinit.make_rescale(
                config,
                dataset,
                model=tost.as_rescaled(trained, annealed),
                normalize=make_normalize(config, dataset),
                augment=make_augment(config),
            ),
        ),
        count_effective=init_masks.make_effective_count(
            model, weights, stats, image, masks
        ),
        level_scores=scores_lib.make_level_scores(
            config,
            dataset,
            models.make_model(config, classes=dataset.classes, precise=True),
            make_normalize(config, dataset),
        ),
    )


def make_normalize(config: ConfigDict, dataset: Dataset) -> Callable[..., Any]:
    """Makes the function that normalizes uint8 images to the network's float inputs.

    Args:
      config: a validated config.
      dataset: supplies the mean and standard deviation where the config has none.

    Raises:
      ValueError: if the config has a mean of another number of channels.
    """
    mean = tuple(map(float, config.data.mean or dataset.mean))
    std = tuple(map(float, config.data.std or dataset.std))
    if len(mean) != len(dataset.mean):
        raise ValueError(
            f"config.data.mean: expected {len(dataset.mean)} numbers, one for each "
            f"channel of {config.data.name!r}, got {len(mean)}; set as many"
        )
    if config.data.normalize == "scale":
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)
    return functools.partial(augment.normalize, mean=mean, std=std)


def augmentation(data: ConfigDict) -> datasets.Augmentation:
    """Returns the random augmentation that the data section of a config describes.

    Images decoded on demand (`data.image_size` above 0) are random resized crops
    already, so they are not padded and cropped a second time.

    Args:
      data: the section "data" of a config.

    Raises:
      ValueError: if the standard augmentation of its dataset is requested but unknown.
    """
    if data.augment == "custom":
        return datasets.Augmentation(data.crop_pad, data.flip)
    known, name = datasets.AUGMENTATIONS, data.name.partition(":")[0]
    if name not in known:
        raise ValueError(
            f"config.data.augment: expected 'custom' for {data.name!r}, got 'standard',"
            f" which is known for {list(known)} only; set crop_pad and flip"
        )
    return known[name]._replace(crop_pad=0) if data.image_size else known[name]


def make_augment(config: ConfigDict) -> steps.Augment | None:
    """Makes the random augmentation of training images; None if there is none.

    Args:
      config: a validated config.

    Returns:
      A function `(images, key=..., places=...)` of uint8 images [b h w c].
    """
    pad, flip = augmentation(config.data)
    if not pad and not flip:
        return None

    def change(images: Any, *, key: Any, places: Any) -> Any:
        # Fixed numbers, so that disabling one augmentation does not change the draws of
        # the other.
        crop_key, flip_key = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
        if pad:
            images = augment.random_crop(images, pad=pad, key=crop_key, places=places)
        if flip:
            images = augment.random_flip(images, key=flip_key, places=places)
        return images

    return change
