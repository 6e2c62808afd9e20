"""Datasets by name, ready to train on.

`load` reads, holds out a validation set, shortens for quick variants, and finds the
numbers to normalise by. To add a dataset of your own, put a function that reads it
into `READERS`; any image classification dataset of TFDS works without.
"""

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from jaxsparse.data import digits, examples, sources
from jaxsparse.data.examples import Dataset, Examples

# Called with `data_dir=`; returns training examples, test examples and classes.
Reader = Callable[..., tuple[Examples, Examples, int]]

READERS: dict[str, Reader] = {"digits": digits.read}

# Mean and standard deviation of each channel, as papers on these sets use them.
# open_lth itself normalises CIFAR-10 by ImageNet's (.485, .456, .406) and
# (.229, .224, .225); the difference is an affine map of the input.
PUBLISHED = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
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


def load(
    name: str,
    *,
    data_dir: str | None = None,
    validation: int = 0,
    split_seed: int = 0,
    train_examples: int | None = None,
    test_examples: int | None = None,
) -> Dataset:
    """Loads a dataset into memory.

    Args:
      name: a key of `READERS`, or the TFDS name of an image classification dataset
        that is prepared in `data_dir`, such as "cifar10" or "cifar10:3.0.2".
      data_dir: folder that holds prepared datasets; None means the environment
        variable TFDS_DATA_DIR or else the default of TFDS.
      validation: examples to hold out of the training set.
      split_seed: of the draw of the validation set.
      train_examples: keep only so many, the first, after validation is held out;
        None keeps all.
      test_examples: keep only so many, the first; None keeps all.

    Returns:
      The dataset. Mean and standard deviation are the published ones where there
      are any, else those of the training examples without the validation set.

    Raises:
      DatasetNotPrepared: if there is no such dataset; the message says how to get it.
      ValueError: if a count asks for more than there is, or a file is damaged.
    """
    reader = READERS.get(name, functools.partial(sources.read, name))
    train, test, classes = reader(data_dir=data_dir)
    train, held_out = examples.split(train, validation=validation, seed=split_seed)
    published = PUBLISHED.get(name.partition(":")[0])
    mean, std = published or channel_statistics(train.images)
    if train_examples is not None:
        train = examples.first(train, train_examples)
    if test_examples is not None:
        test = examples.first(test, test_examples)
    return Dataset(train, held_out, test, classes, mean, std)
