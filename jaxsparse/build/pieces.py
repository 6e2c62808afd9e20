"""The parts of a run that a config names: network, optimiser, data, augmentation."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import initializers, models
from jaxsparse import masks as masks_lib
from jaxsparse.build import chosen, sparse
from jaxsparse.build.lengths import lengths as read_lengths
from jaxsparse.build.lengths import under
from jaxsparse.data import augment, datasets
from jaxsparse.data.examples import Dataset
from jaxsparse.lottery import controls
from jaxsparse.lottery.experiment import Network
from jaxsparse.training import optimizers, steps

ModelFactory = Callable[..., nn.Module]


def _resnet(depth: int) -> ModelFactory:
    def make(width: int, norm: Any, features: Any = None, **rest: Any) -> nn.Module:
        if features is not None:
            raise ValueError(
                f"config.model.features: came {features} for a ResNet, which has no "
                "hidden dense layers; wanted ()"
            )
        return models.CifarResNet(depth=depth, width=width, norm=norm, **rest)

    return make


def _plain(module: Callable[..., nn.Module], **fields: Any) -> ModelFactory:
    return lambda width, norm, **rest: module(**fields, **rest)


# Called with `classes`, `dtype`, `width`, `norm` and, if they are set, `features`.
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


def _look_up(field: str, name: str, known: Any) -> None:
    if name not in known:
        raise ValueError(
            f"config.{field}: unknown {name!r}; did you mean "
            f"{config_lib.nearest(name, list(known))}?"
        )


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
    sparse.check(config)
    chosen.check(config)
    read_lengths(config, steps_per_epoch=10**9)  # only whether they can be read


def load_data(config: ConfigDict) -> Dataset:
    """Reads the dataset of a config onto the host.

    Raises:
      ValueError: if it is not there, or smaller than what is asked of it.
    """
    c = config.data
    with under("data"):
        return datasets.load(
            c.name,
            data_dir=c.dir or None,
            validation=c.validation,
            split_seed=c.split_seed,
            train_examples=c.train_examples or None,
            test_examples=c.test_examples or None,
        )


def make_model(
    config: ConfigDict,
    *,
    classes: int,
    axis_name: str | None = None,
    precise: bool = False,
) -> nn.Module:
    """Makes the network of a config.

    Args:
      config: a validated config.
      classes: number of outputs.
      axis_name: for BatchNorm, see `sharding`.
      precise: compute in the precision of the parameters, whatever the config says.
    """
    norm = functools.partial(
        nn.BatchNorm, momentum=0.9, epsilon=1e-5, axis_name=axis_name
    )
    sizes = tuple(config.model.features)
    own = {"features": sizes} if sizes else {}
    return MODELS[config.model.name](
        classes=classes,
        dtype=None
        if precise or config.model.dtype == "float32"
        else config.model.dtype,
        width=config.model.width,
        norm=norm,
        **own,
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


def _shapes(config: ConfigDict, model: nn.Module, image: tuple[int, ...]) -> Any:
    """Returns the shapes of a network's variables for images [h w c]."""
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
            f"config.model.name: {config.model.name!r} has a layer to which nothing is "
            f"left of images of {image}; wanted larger images, or another network"
        )
    return like


def make_network(
    config: ConfigDict, dataset: Dataset, make_tx: Callable[..., Any]
) -> Network:
    """Makes what is trained: how it is initialised, its optimiser, its first masks.

    Args:
      config: a validated config.
      dataset: what it is trained on.
      make_tx: called with the names of layers to keep whole, to the sparse optimiser
        and what makes others sparse alike, see `sparse.make_wrap`.
    """
    model = make_model(config, classes=dataset.classes)
    image = dataset.train.images.shape[1:]
    like = _shapes(config, model, image)
    stats = like.get("batch_stats", {})
    draw = functools.partial(
        initializers.initialize,
        like["params"],
        kernel=config.init.kernel,
        bias=config.init.bias,
        norm_scale=config.init.norm_scale,
    )

    def one(key: Any) -> tuple[Any, Any]:
        first = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.full(
                leaf.shape, masks_lib.name_of(path).endswith("var"), leaf.dtype
            ),
            stats,
        )
        return draw(key=key), first

    weights = like["params"]
    dense = chosen.ends_kept_whole(config, model, weights, stats, image)
    tx, wrap = make_tx(dense)
    with under("sparse"):
        masks = masks_lib.dense(weights, prunable=sparse.prunable(config))
        jax.eval_shape(tx.init, weights)  # what does not fit is refused here
    return Network(
        jax.jit(jax.vmap(one)),
        tx,
        masks,
        first_masks=chosen.make_first_masks(
            config,
            dataset,
            make_model(config, classes=dataset.classes, precise=True),
            make_normalize(config, dataset),
            wrap,
            dense=dense,
        ),
        fresh_weights=config.sparse.ablation == "reinitialized",
        live=chosen.make_live(model, weights, stats, image, masks),
    )


def make_normalize(config: ConfigDict, dataset: Dataset) -> Callable[..., Any]:
    """Makes the function from uint8 images to the network's floats."""
    mean, std = dataset.mean, dataset.std
    if config.data.normalize == "unit":
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)
    return functools.partial(augment.normalize, mean=mean, std=std)


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
