"""Datasets by name, ready to train on.

`load` reads, holds out a validation set, shortens for quick variants, and finds the
numbers to normalise by. To add a dataset of your own, give the function that reads it
to `jaxsparse.register_dataset`, or to `load`; any image classification dataset that
TFDS has prepared works without, and any tree of images (`folders`).
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxsparse.data import dataset, digits, folders, lazy, sources, tiny_imagenet
from jaxsparse.data.dataset import Dataset, Examples

# Called with `data_dir=`; returns training examples, test examples and classes.
Read = tuple[Examples, Examples, int]
Reader = Callable[..., Read]

TREE_SEED = 0  # of the order of folders' images, fixed for ever
SAMPLE = 1000  # images that the statistics of a set in files are taken of


def mixed(read: Reader, *args: Any, **options: Any) -> Read:
    """Reads examples and mixes them.

    Folders give examples class by class, and analyses and quick variants look at the
    first so many. Mixed they are a sample of all classes, as in what TFDS prepares.

    Args:
      read: reads folders of images.
      *args: its own.
      **options: its own.

    Returns:
      Training examples and test examples, each in an order that depends on their number
      alone, and the number of classes.
    """
    train, test, classes = read(*args, **options)
    return *(dataset.mix(part, seed=TREE_SEED) for part in (train, test)), classes


# TFDS does not have it. Two of its thirds are trained on, as in Paul et al. (2022).
read_cinic10 = functools.partial(mixed, folders.read, "cinic10", with_validation=True)
read_tiny_imagenet = functools.partial(mixed, tiny_imagenet.read)

READERS: dict[str, Reader] = {
    "digits": digits.read,
    "cinic10": read_cinic10,
    tiny_imagenet.NAME: read_tiny_imagenet,
}

# What TFDS calls it, and what a tree of its images may be called.
IMAGENET = ("imagenet2012", "imagenet")

# Mean and standard deviation of each channel, as papers on these sets use them.
# open_lth itself normalises CIFAR-10 by ImageNet's (.485, .456, .406) and
# (.229, .224, .225); the difference is an affine map of the input.
PUBLISHED = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "cinic10": ((0.4789, 0.4723, 0.4305), (0.2421, 0.2383, 0.2587)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "svhn_cropped": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    # Tanaka et al. (2020) and most work on pruning since.
    tiny_imagenet.NAME: ((0.480, 0.448, 0.397), (0.276, 0.269, 0.282)),
    **dict.fromkeys(IMAGENET, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
}


class Augmentation(NamedTuple):
    """Random changes of training images.

    Attributes:
      crop_pad: pixels of padding before a random crop; 0 for none.
      flip: whether every second image is mirrored.
    """

    crop_pad: int
    flip: bool


# What papers on these sets train with, as far as it is known. Digits and clothes are
# not changed.
AUGMENTATIONS = {
    "digits": Augmentation(0, False),
    "mnist": Augmentation(0, False),
    "fashion_mnist": Augmentation(0, False),
    # Zagoruyko, Komodakis 2016, arXiv:1605.07146, section 3, who also divide by 255
    # and no more.
    "svhn_cropped": Augmentation(0, False),
    "cifar10": Augmentation(4, True),
    "cifar100": Augmentation(4, True),
    "cinic10": Augmentation(4, True),
    # Tanaka et al. 2020, arXiv:2006.05467, in their code.
    tiny_imagenet.NAME: Augmentation(4, True),
    # Of images whose parts are drawn already (`stored`).
    **dict.fromkeys(IMAGENET, Augmentation(0, True)),
}


def channel_statistics(
    images: UInt8[np.ndarray, "n h w c"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Computes the mean and standard deviation of each channel.

    Args:
      images: what to average over, all pixels of all images alike.

    Returns:
      Means and standard deviations on the [0, 1] scale, exact up to the last float64
      operations. A constant channel has the deviation 1, so that normalising it
      gives zeros.
    """
    levels = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[-1]):
        # One image at a time: bincount widens its argument to 64 bits.
        counts = np.zeros(256, np.int64)
        for image in images:
            counts += np.bincount(image[..., channel].reshape(-1), minlength=256)
        mean = np.average(levels, weights=counts)
        deviation = np.sqrt(np.average((levels - mean) ** 2, weights=counts))
        means.append(float(mean))
        stds.append(float(deviation) if np.count_nonzero(counts) > 1 else 1.0)
    return tuple(means), tuple(stds)


def read(name: str, *, data_dir: str | None, size: int = 0) -> Read:
    """Reads what the folder of datasets has under a name.

    Args:
      name: of a dataset that TFDS has prepared, or else of a tree of images; where both
        are, it is the former.
      data_dir: as for `load`.
      size: as for `load`.

    Returns:
      Training examples, test examples and the number of classes.

    Raises:
      DatasetNotPrepared: if there is neither.
      ValueError: if what is there cannot be read.
    """
    more = {"size": size} if size else {}
    prepared, tree = (
        (lazy.prepared, lazy.tree) if size else (sources.read, folders.read)
    )
    try:
        return prepared(name, data_dir=data_dir, **more)
    except sources.DatasetNotPrepared:
        if not folders.is_there(name, data_dir=data_dir):
            raise
    return mixed(tree, name, data_dir=data_dir, **more)


def check_there(name: str, *, data_dir: str | None = None) -> None:
    """Refuses a dataset that is not there; reads no example.

    Args:
      name: as for `load`.
      data_dir: as for `load`.

    Raises:
      DatasetNotPrepared: if there is no such dataset; the message says how to get it.
    """
    if name == "cinic10":
        folders.find(name, data_dir=data_dir, with_validation=True)
    elif name == tiny_imagenet.NAME:
        tiny_imagenet.find(data_dir=data_dir)
    elif name not in READERS and not folders.is_there(name, data_dir=data_dir):
        sources.find(name, data_dir=data_dir)


def folder(name: str, *, data_dir: str | None) -> Path | None:
    """Finds the folder of a dataset; None where nothing is in files of its own.

    Args:
      name: as for `load`.
      data_dir: as for `load`.
    """
    if name not in READERS:
        try:
            return sources.find(name, data_dir=data_dir)
        except sources.DatasetNotPrepared:
            pass
    there = folders.is_there(name, data_dir=data_dir)
    return sources.root_folder(data_dir) / name if there else None


def _reader(name: str, size: int, given: Reader | None) -> Reader:
    own = given or READERS.get(name)
    if not size:
        return own or functools.partial(read, name)
    if own is not None:
        raise ValueError(
            f"size: came {size} for {name!r}, which has a reader of its own that puts "
            "all of it into memory; wanted 0"
        )
    return functools.partial(read, name, size=size)


def _statistics(images: dataset.Images) -> Any:
    """Computes those of all images, or of a sample where they are in files."""
    if isinstance(images, np.ndarray):
        return channel_statistics(images)
    return channel_statistics(images[:SAMPLE])


def load(
    name: str,
    *,
    reader: Reader | None = None,
    published: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    data_dir: str | None = None,
    size: int = 0,
    validation: int = 0,
    split_seed: int = 0,
    train_examples: int | None = None,
    test_examples: int | None = None,
) -> Dataset:
    """Loads a dataset into the host's memory, or opens one that has no room there.

    Args:
      name: a key of `READERS`, or the TFDS name of an image classification dataset
        that is prepared in `data_dir`, such as "cifar10" or "cifar10:3.0.2", or else
        the name of a folder there that holds images, as `folders` reads them, mixed.
      reader: what reads it, in place of what the name says: called with `data_dir=`,
        returns training examples, test examples and the number of classes.
      published: mean and standard deviation of each channel; None for those known
        under the name, if any.
      data_dir: folder that holds datasets; None means the environment variable
        TFDS_DATA_DIR or else the default of TFDS.
      size: above 0 leaves images in their files, which may then be of all sizes, and
        decodes those that are asked for to so many pixels a side; see
        `stored.StoredImages`. 0 reads them all, as they are.
      validation: examples to hold out of the training set.
      split_seed: of the draw of the validation set.
      train_examples: keep only so many, the first, after validation is held out;
        None keeps all.
      test_examples: keep only so many, the first; None keeps all.

    Returns:
      The dataset. Mean and standard deviation are the published ones where there
      are any of as many channels, else those of the training examples without the
      validation set; of images in files those of the first 1,000 of them.

    Raises:
      DatasetNotPrepared: if there is no such dataset; the message says how to get it.
      ValueError: if a count asks for more than there is, or a file is damaged.
    """
    train, test, classes = _reader(name, size, reader)(data_dir=data_dir)
    train, held_out = dataset.split(train, validation=validation, seed=split_seed)
    if published is None:
        published = PUBLISHED.get(name.partition(":")[0])
    if published is None or len(published[0]) != train.images.shape[-1]:
        published = _statistics(train.images)
    mean, std = published
    if train_examples is not None:
        train = dataset.first(train, train_examples)
    if test_examples is not None:
        test = dataset.first(test, test_examples)
    return Dataset(train, held_out, test, classes, mean, std)
