"""Sets of labelled images on the host, and how to divide them.

This module holds what every dataset is made of. Reading is for `sources` and
`digits`; the order of examples during training is for `order`.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32, UInt8

from jaxsparse.data.image_files import StoredImages

Images = UInt8[np.ndarray, "n h w c"] | StoredImages


class Examples(NamedTuple):
    """Labelled images, example i in row i of both arrays.

    Attributes:
      images: pixels from 0 to 255, in memory or still in files.
      labels: classes, counted from 0.
    """

    images: Images
    labels: Int32[np.ndarray, " n"]


class Dataset(NamedTuple):
    """Everything a run needs to know about its data.

    Attributes:
      train: what the network is trained on.
      validation: what choices are made on; empty unless asked for.
      test: what results are reported on, and nothing else.
      classes: how many classes there are.
      mean: mean of each channel on the [0, 1] scale, for `augment.normalize`.
      std: standard deviation of each channel on the [0, 1] scale.
    """

    train: Examples
    validation: Examples
    test: Examples
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def of_zeros(
    *, examples: tuple[int, int, int], image: tuple[int, int, int], classes: int
) -> Dataset:
    """Makes a dataset of given sizes, in next to no memory, where no data are needed.

    Args:
      examples: how many to train on, to validate on and to test on.
      image: height, width and channels.
      classes: how many there are.
    """
    parts = (
        Examples(
            np.broadcast_to(np.uint8(0), (n, *image)),
            np.broadcast_to(np.int32(0), n),
        )
        for n in examples
    )
    channels = image[-1]
    return Dataset(*parts, classes, (0.0,) * channels, (1.0,) * channels)


def take(examples: Examples, rows: Int[np.ndarray, " m"]) -> Examples:
    """Copies the given rows, in the given order; what is in files stays there."""
    return _chosen(examples, rows)


def _chosen(examples: Examples, rows: Any) -> Examples:
    images = examples.images
    stays = isinstance(images, StoredImages)
    return Examples(
        images.select(rows) if stays else images[rows], examples.labels[rows]
    )


def digest(dataset: Dataset) -> str:
    """Sums up which examples a dataset has, by their labels and by names of files.

    What is in the files, or in memory, is not looked at; folders may lie elsewhere.
    """
    found = hashlib.sha256(f"{dataset.classes}\n".encode())
    for part in (dataset.train, dataset.validation, dataset.test):
        found.update(f"{part.images.shape}\n".encode())
        found.update(np.ascontiguousarray(part.labels).tobytes())
        if isinstance(part.images, StoredImages):
            found.update(np.ascontiguousarray(part.images.rows).tobytes())
            for name in part.images.source.parts():
                found.update(f"{name}\n".encode())
    return found.hexdigest()


def split(
    examples: Examples, *, validation: int, seed: int
) -> tuple[Examples, Examples]:
    """Divides examples at random into a training and a validation set.

    Both keep the original order of their examples. The draw is not stratified.

    Args:
      examples: what to divide.
      validation: examples to hold out, exactly; 0 gives an empty validation set.
      seed: of this draw alone, non-negative; no other seed of a run moves it.

    Returns:
      The training set and the validation set, disjoint, together `examples`; nothing
      is copied where nothing is held out.

    Raises:
      ValueError: if `validation` is negative or leaves nothing to train on.
    """
    total = len(examples.labels)
    if not 0 <= validation < total:
        raise ValueError(
            f"validation: got {validation} of {total} training examples; wanted 0 to "
            f"{total - 1}; hold out fewer"
        )
    if not validation:
        return examples, _chosen(examples, slice(0))
    # The bit generator is named because numpy may change its default.
    generator = np.random.Generator(np.random.PCG64(seed))
    order = generator.permutation(total)
    return (
        take(examples, np.sort(order[validation:])),
        take(examples, np.sort(order[:validation])),
    )


def mix(examples: Examples, *, seed: int) -> Examples:
    """Copies examples in a random order, so that the first so many are a sample.

    Args:
      examples: what to put into another order.
      seed: of this order alone, non-negative.
    """
    # The bit generator is named because numpy may change its default.
    generator = np.random.Generator(np.random.PCG64(seed))
    return take(examples, generator.permutation(len(examples.labels)))


def first(examples: Examples, n: int) -> Examples:
    """Returns the first `n` examples, for quick variants of an experiment.

    Args:
      examples: what to shorten; the result shares its memory.
      n: examples to keep, at least 1.

    Returns:
      Exactly `n` examples.

    Raises:
      ValueError: if there are fewer than `n`, or `n` is below 1.
    """
    total = len(examples.labels)
    if not 1 <= n <= total:
        raise ValueError(
            f"first: got {n} of {total} examples; wanted 1 to {total}; ask for fewer, "
            "or leave the number out to use all"
        )
    return _chosen(examples, slice(n))
