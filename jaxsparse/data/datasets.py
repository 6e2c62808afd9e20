"""Loads datasets by name, ready to train on.

`load` reads a dataset, holds out a validation set, shortens the dataset for quick
presets, and finds the mean and standard deviation to standardize by. Any image
classification dataset prepared by TFDS and any tree of image folders (`folders`) works
by its name. To add another dataset, pass the function that reads it to
`jaxsparse.register_dataset` or to `load`.
"""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxsparse.data import (
    dataset,
    digits,
    file_hash,
    folders,
    image_cache,
    names,
    text,
    tfds_folders,
    tiny_imagenet,
)
from jaxsparse.data.dataset import Dataset, Examples

# Training examples, test examples and the number of classes.
Read = tuple[Examples, Examples, int]
# Called with the keyword argument `data_dir`.
Reader = Callable[..., Read]

# Seed of the order of images read from folders. Never change it: another value is
# another dataset.
TREE_SEED = 0
# Number of images used for the mean and standard deviation if they stay in files,
# since decoding all of them takes too long.
SAMPLE = 1000


def mixed(read: Reader, *args: Any, **options: Any) -> Read:
    """Reads examples and shuffles them.

    Folders are read class by class, but analyses and quick presets use the first n
    examples. After shuffling, these are a sample of all classes, as in datasets
    prepared by TFDS.

    Args:
      read: function that reads folders of images.
      *args: positional arguments of `read`.
      **options: keyword arguments of `read`.

    Returns:
      Training examples and test examples, each in an order that depends only on their
      number, and the number of classes.
    """
    train, test, classes = read(*args, **options)
    return *(dataset.mix(part, seed=TREE_SEED) for part in (train, test)), classes


# Not in TFDS. Training uses two of its three equal splits, as in Paul et al. (2022).
read_cinic10 = functools.partial(mixed, folders.read, "cinic10", with_validation=True)
read_tiny_imagenet = functools.partial(mixed, tiny_imagenet.read)

READERS: dict[str, Reader] = {
    "digits": digits.read,
    "cinic10": read_cinic10,
    tiny_imagenet.NAME: read_tiny_imagenet,
    "python_docs": text.read_python_docs,
}

# Mean and standard deviation of each channel, as papers on these datasets use them.
# open_lth standardizes CIFAR-10 with ImageNet's (.485, .456, .406) and
# (.229, .224, .225) instead; the difference is an affine map of the input.
PUBLISHED = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "cinic10": ((0.4789, 0.4723, 0.4305), (0.2421, 0.2383, 0.2587)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
    "svhn_cropped": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    # Tanaka et al. (2020) and most work on pruning since.
    tiny_imagenet.NAME: ((0.480, 0.448, 0.397), (0.276, 0.269, 0.282)),
    **dict.fromkeys(names.IMAGENET, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
}


class Augmentation(NamedTuple):
    """Augmentation of training images.

    Attributes:
      crop_pad: pixels of zero padding before a random crop; 0 for no crop.
      flip: whether images are flipped horizontally with probability 1/2.
    """

    crop_pad: int
    flip: bool


# What papers on these datasets train with, as far as it is known. Digits and
# Fashion-MNIST are not augmented.
AUGMENTATIONS = {
    "digits": Augmentation(0, False),
    "mnist": Augmentation(0, False),
    "fashion_mnist": Augmentation(0, False),
    # Zagoruyko, Komodakis 2016, arXiv:1605.07146, section 3. They scale pixels to
    # [0, 1] and do not standardize them.
    "svhn_cropped": Augmentation(0, False),
    "cifar10": Augmentation(4, True),
    "cifar100": Augmentation(4, True),
    "cinic10": Augmentation(4, True),
    # From the code of Tanaka et al. 2020, arXiv:2006.05467.
    tiny_imagenet.NAME: Augmentation(4, True),
    # No padded crop: images in files get a random resized crop when they are decoded.
    **dict.fromkeys(names.IMAGENET, Augmentation(0, True)),
}


def channel_statistics(
    images: UInt8[np.ndarray, "n h w c"],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Computes the mean and standard deviation of each channel.

    Args:
      images: uint8 images; all pixels of all images have equal weight.

    Returns:
      Means and standard deviations on the [0, 1] scale, exact up to the rounding of the
      last float64 operations. A constant channel has the standard deviation 1, so that
      standardizing it gives zeros.
    """
    # Histograms of the 256 pixel values are exact and need no float copy of the images.
    levels = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[-1]):
        # One image at a time: `bincount` converts its argument to 64-bit integers.
        counts = np.zeros(256, np.int64)
        for image in images:
            counts += np.bincount(image[..., channel].reshape(-1), minlength=256)
        mean = np.average(levels, weights=counts)
        deviation = np.sqrt(np.average((levels - mean) ** 2, weights=counts))
        means.append(float(mean))
        stds.append(float(deviation) if np.count_nonzero(counts) > 1 else 1.0)
    return tuple(means), tuple(stds)


def read(name: str, *, data_dir: str | None, size: int = 0) -> Read:
    """Reads a dataset prepared by TFDS, or else a tree of images of that name.

    Args:
      name: TFDS name, such as "cifar10" or "cifar10:3.0.2", or name of a folder of
        images. If both exist, the TFDS dataset is read.
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.
      size: height and width in pixels of images that stay in their files and are
        decoded on access; 0 reads all images into memory at their own size.

    Returns:
      Training examples, test examples and the number of classes.

    Raises:
      DatasetNotPrepared: if neither exists.
      ValueError: if the dataset cannot be read.
    """
    options = {"size": size} if size else {}
    # Imported on use: they import TFDS, which other datasets need not wait for.
    if size:
        from jaxsparse.data import lazy

        prepared, tree = lazy.prepared, lazy.tree
    else:
        from jaxsparse.data import sources

        prepared, tree = sources.read, folders.read
    try:
        return prepared(name, data_dir=data_dir, **options)
    except tfds_folders.DatasetNotPrepared:
        if not folders.is_there(name, data_dir=data_dir):
            raise
    return mixed(tree, name, data_dir=data_dir, **options)


def check_there(name: str, *, data_dir: str | None = None) -> None:
    """Checks that a dataset exists, without reading an example.

    Args:
      name: a key of `READERS`, a TFDS name, or the name of a folder of images.
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.

    Raises:
      DatasetNotPrepared: if there is no such dataset; the message says how to get it.
    """
    if name == "cinic10":
        folders.find(name, data_dir=data_dir, with_validation=True)
    elif name == tiny_imagenet.NAME:
        tiny_imagenet.find(data_dir=data_dir)
    elif name not in READERS and not folders.is_there(name, data_dir=data_dir):
        tfds_folders.find(name, data_dir=data_dir)


def folder(name: str, *, data_dir: str | None) -> Path | None:
    """Finds the folder of a dataset.

    Args:
      name: a key of `READERS`, a TFDS name, or the name of a folder of images.
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.

    Returns:
      The folder; None if the dataset has no folder of its own.
    """
    if name not in READERS:
        try:
            return tfds_folders.find(name, data_dir=data_dir)
        except tfds_folders.DatasetNotPrepared:
            pass
    exists = folders.is_there(name, data_dir=data_dir)
    return names.root_folder(data_dir) / name if exists else None


def make_reader(name: str, *, use_cache: bool = True) -> Reader:
    """Makes the function that reads a dataset into memory.

    Args:
      name: a key of `READERS`, a TFDS name, or the name of a folder of images.
      use_cache: whether to read decoded images from `image_cache`, and to save them
        there if it does not have them.

    Returns:
      The function. It takes the keyword argument `data_dir` and returns training
      examples, test examples and the number of classes, which do not depend on
      `use_cache`.
    """
    plain = READERS.get(name) or functools.partial(read, name)
    if not use_cache or plain is digits.read:  # scikit-learn has the digits
        return plain

    def cached(*, data_dir: str | None) -> Read:
        return image_cache.read(
            functools.partial(plain, data_dir=data_dir),
            functools.partial(_entry, name, data_dir=data_dir),
        )

    return cached


def _entry(name: str, *, data_dir: str | None) -> Path | None:
    """Finds the place of a dataset in the cache; None if its files cannot be read."""
    # Errors are left to the reader, which may not need the file.
    with contextlib.suppress(OSError):
        root = folder(name, data_dir=data_dir)
        return root and image_cache.entry(name, file_hash.with_folders(root))
    return None


def choose_reader(name: str, size: int, custom_reader: Reader | None) -> Reader:
    """Returns the function with which `load` reads a dataset.

    Args:
      name: name of the dataset, as for `load`.
      size: size of images that stay in their files, as for `load`; 0 for images in
        memory.
      custom_reader: reader of the user, as the argument `reader` of `load`; None for
        that of the dataset.

    Raises:
      ValueError: if `size` is not 0 for a dataset with a reader of its own.
    """
    if not size:
        return custom_reader or make_reader(name)
    if custom_reader or name in READERS:
        raise ValueError(
            f"size: expected 0 for {name!r}, whose reader loads all images into "
            f"memory, got {size}"
        )
    return functools.partial(read, name, size=size)


def _statistics(images: dataset.Images) -> Any:
    """Computes channel statistics of all images; of a sample if they are in files."""
    if isinstance(images, np.ndarray):
        return channel_statistics(images)
    return channel_statistics(images[:SAMPLE])


def load(
    name: str,
    *,
    reader: Reader | None = None,
    published: tuple[tuple[float, ...], ...] | None = None,
    data_dir: str | None = None,
    size: int = 0,
    validation: int = 0,
    split_seed: int = 0,
    examples: tuple[int | None, int | None] = (None, None),
) -> Dataset:
    """Loads a dataset into host memory, or opens one whose images stay in files.

    Args:
      name: a key of `READERS`; or the TFDS name of an image classification dataset that
        is prepared in `data_dir`, such as "cifar10" or "cifar10:3.0.2"; or the name of
        a folder in `data_dir` with the layout that `folders` reads, whose examples are
        then shuffled.
      reader: function that reads the dataset; None for that of `make_reader`, with the
        cache of decoded images. It is called with the keyword argument `data_dir` and
        returns training examples, test examples and the number of classes.
      published: means and standard deviations of the channels, on the [0, 1] scale;
        None for those in `PUBLISHED` under the name, if any; () for none.
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.
      size: height and width in pixels of images that stay in their files and are
        decoded on access, see `image_files.StoredImages`; the files may then differ in
        size. 0 reads all images into memory at their own size.
      validation: number of training examples to hold out for validation.
      split_seed: seed of the validation split, non-negative.
      examples: numbers of training and of test examples to keep: the first ones after
        the validation split, and the first ones; None keeps all.

    Returns:
      The dataset. Its mean and standard deviation are the published ones if they exist
      for as many channels. Otherwise they are those of the training examples without
      the validation set; for images in files, those of the first 1,000 of these.

    Raises:
      DatasetNotPrepared: if there is no such dataset; the message says how to get it.
      ValueError: if more examples are requested than the dataset has, if `size` is not
        0 for a dataset with a reader of its own, or if a file is damaged.
    """
    train, test, classes = choose_reader(name, size, reader)(data_dir=data_dir)
    train, held_out = dataset.split(train, validation=validation, seed=split_seed)
    if published is None:
        published = PUBLISHED.get(name.partition(":")[0])
    # A color dataset whose images are all gray is read with one channel.
    if not published or len(published[0]) != train.images.shape[-1]:
        published = _statistics(train.images)
    mean, std = published
    # Shorten last, so that the statistics do not depend on the number of examples.
    train, test = (
        part if count is None else dataset.first(part, count, field=field)
        for part, count, field in zip(
            *((train, test), examples, ("train_examples", "test_examples")), strict=True
        )
    )
    return Dataset(train, held_out, test, classes, mean, std)
