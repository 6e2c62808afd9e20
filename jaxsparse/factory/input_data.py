"""Loads the dataset of a run, and makes its inputs, targets and augmentation."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import losses, multihost
from jaxsparse.data import augment, datasets, names
from jaxsparse.data import dataset as dataset_lib
from jaxsparse.data.dataset import Dataset
from jaxsparse.factory import prediction, unused_fields
from jaxsparse.factory import pretraining as pretraining_lib
from jaxsparse.factory.durations import config_context
from jaxsparse.training import steps


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
    size, reader, published = c.image_size, None, None
    if own is not None and own.predicts == "next_token":
        given = {field: c[field] for field in ("context", *own.options)}
        reader = functools.partial(own.load(), **given)
        published = (0.0,), (1.0,)  # tokens are not normalized
    elif own is None or own.load() is datasets.READERS.get(c.name):
        if not c.image_size:
            reader = datasets.make_reader(c.name, use_cache=c.use_cache)
    else:
        given = {field: c[field] for field in own.options}
        reader = functools.partial(own.load(), **given)
        published = (own.mean, own.std) if own.mean else None
    with config_context("data"):
        if c.downsample > 1:
            full = datasets.choose_reader(c.name, size, reader)
            reader = functools.partial(_read_downsampled, full, c.downsample)
            # Published statistics are those of images at their own size.
            size, published = 0, ()
        return datasets.load(
            c.name,
            reader=reader,
            published=published,
            data_dir=c.dir or None,
            size=size,
            validation=c.validation,
            split_seed=c.split_seed,
            examples=(c.train_examples or None, c.test_examples or None),
        )


def _read_downsampled(
    read: datasets.Reader, factor: int, *, data_dir: str | None
) -> datasets.Read:
    """Reads examples, and averages their images over windows of pixels."""
    train, test, classes = read(data_dir=data_dir)
    return *(dataset_lib.downsample(part, factor) for part in (train, test)), classes


def check(config: ConfigDict) -> None:
    """Checks that no options of another dataset are set, and what it predicts.

    Args:
      config: a config with valid types and ranges.

    Raises:
      ValueError: if one is, or a field or the network does not fit what is predicted;
        the message names the config field.
    """
    name = config.data.name
    own = config_lib.DATASETS[name].options if name in config_lib.DATASETS else ()
    built_in = {field.removeprefix("data.") for field in config_lib.FIELDS}
    used = {*built_in, *own}
    if prediction.of_dataset(name) != "next_token":
        used -= {"context"}
    unused_fields.check(config, "data", used, chosen=f"data.name {name!r}")
    prediction.check(config)


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


def make_task(config: ConfigDict, dataset: Dataset) -> losses.PredictionTask:
    """Makes the task of a config: what its network reads and predicts.

    Args:
      config: a validated config.
      dataset: supplies the mean and standard deviation of images where the config has
        none.

    Raises:
      ValueError: if the config has a mean of another number of channels.
    """
    if prediction.of_dataset(config.data.name) == "next_token":
        return losses.NEXT_TOKEN
    normalize = make_normalize(config, dataset)
    return losses.PredictionTask(normalize, losses.class_labels)


def example_input(config: ConfigDict, dataset: Dataset) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype of a batch of one input of the network.

    Args:
      config: a validated config.
      dataset: the dataset; only the shape of its examples is used.
    """
    shape = (1, *dataset.train.images.shape[1:])
    inputs = make_task(config, dataset).inputs
    return jax.eval_shape(inputs, jax.ShapeDtypeStruct(shape, jnp.uint8))


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
