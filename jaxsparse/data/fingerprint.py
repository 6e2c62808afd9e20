"""Fingerprints of datasets, by which a run detects that its examples have changed.

For images in memory, the fingerprint covers every byte. For images that stay in files
(`image_files`), it covers only the names and sizes of the files, independent of the
folder that holds them. A file that changes without changing its size is therefore not
detected: reading all files would take as long as an epoch.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxsparse.data import datasets, file_hash, thread_pool
from jaxsparse.data.dataset import Dataset, Examples, Images
from jaxsparse.data.image_files import StoredImages

BLOCKS = 64  # hashes per split, so that a difference can be located
SPLITS = ("train", "validation", "test")

Fingerprint = Mapping[str, Any]  # can be stored as JSON


def of(dataset: Dataset) -> dict[str, Any]:
    """Computes the fingerprint of a dataset as it is used for training and evaluation.

    Takes 0.3 s for CIFAR-10 on one core.

    Args:
      dataset: a dataset such as `datasets.load` returns.

    Returns:
      The number of classes and, for each split, the number of examples, the number of
      examples of each class, and hashes of blocks of its labels and images.
    """
    splits = {name: _of_split(getattr(dataset, name)) for name in SPLITS}
    return {"classes": dataset.classes, "splits": splits}


class Sizes(NamedTuple):
    """Sizes of a dataset.

    Attributes:
      examples: number of training, validation and test examples.
      image: height, width and number of channels.
      classes: number of classes.
    """

    examples: tuple[int, int, int]
    image: tuple[int, int, int]
    classes: int


def sizes(data: Fingerprint) -> Sizes:
    """Extracts the sizes of a dataset from its fingerprint.

    Args:
      data: a fingerprint from `of`, or the same read from a JSON file.

    Returns:
      The sizes.

    Raises:
      ValueError: if `data` is not a fingerprint.
    """
    try:
        # `_of_images` writes the shape first, as text.
        parts = [data["splits"][name] for name in SPLITS]
        shape = re.match(r"\((\d+), (\d+), (\d+), (\d+)\)", parts[0]["images"][0])
        _, *image = map(int, shape.groups())
        counts = tuple(int(part["examples"]) for part in parts)
        return Sizes(counts, tuple(image), int(data["classes"]))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"data: expected a fingerprint from `of`, got another object ({error!r})"
        ) from error


def of_images(images: Images) -> str:
    """Computes one hash of all images.

    Args:
      images: images in memory or in files. For images in memory, every byte is hashed;
        for images in files, only file names and sizes.

    Returns:
      16 hexadecimal digits.
    """
    return _hash("".join(_of_images(images)).encode())


def of_files(name: str, *, data_dir: str | None) -> str | None:
    """Hashes the files of a dataset, as a key for caches of its decoded images.

    Takes 0.1 s for CIFAR-10 or MNIST on one core. For folders of small images it takes
    a quarter of the time of decoding them at first; later the hash is remembered while
    the sizes and times of all files stay the same, see `file_hash`.

    Args:
      name: a key of `datasets.READERS`, a TFDS name, or the name of a folder of images;
        not a dataset with a reader of the user.
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.

    Returns:
      SHA-256, in hexadecimal, of the names and contents of the files. It depends
      neither on the location of the folder nor on modification times. None for a
      dataset without a folder.

    Raises:
      OSError: if a file or folder cannot be read.
    """
    root = datasets.folder(name, data_dir=data_dir)
    return None if root is None else file_hash.of_folder(root)


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """Describes the differences between two fingerprints for a message.

    Args:
      before: the expected fingerprint, from `of` or read from a JSON file.
      now: the actual fingerprint, from `of` or read from a JSON file.

    Returns:
      A phrase for each difference; an empty list for equal data.

    Raises:
      ValueError: if `before` or `now` is not a fingerprint.
    """
    try:
        phrases = []
        if before["classes"] != now["classes"]:
            phrases.append(f"{before['classes']} classes before, {now['classes']} now")
        for name in SPLITS:
            pair = before["splits"][name], now["splits"][name]
            phrases += [f"{name}: {words}" for words in _of_pair(*pair)]
        return phrases
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"data: expected a fingerprint from `of`, got another object ({error!r})"
        ) from error


def _of_split(examples: Examples) -> dict[str, Any]:
    labels = np.ascontiguousarray(examples.labels, "<i4")
    classes, counts = np.unique(labels, return_counts=True)
    return {
        "examples": len(labels),
        "by_class": {str(c): int(n) for c, n in zip(classes, counts, strict=True)},
        "labels": _in_blocks(len(labels), lambda rows: labels[rows].tobytes()),
        "images": _of_images(examples.images),
    }


def _of_images(images: Images) -> list[str]:
    if not isinstance(images, StoredImages):
        size = [str(images.shape)]
        return size + _in_blocks(len(images), lambda rows: _bytes(images[rows]))
    if not len(images):
        return [str(images.shape)]
    names, paths = list(images.source.parts()), images.source.paths
    # Little-endian int64 gives the same hash on every platform.
    rows = _hash(np.ascontiguousarray(images.rows, "<i8").tobytes())
    if len(paths) == len(images.source):  # one file per image, not shards
        names = [names[row] for row in images.rows]
        paths = [paths[row] for row in images.rows]

    def listed(part: slice) -> bytes:
        pairs = zip(names[part], paths[part], strict=True)
        return "".join(f"{n} {os.path.getsize(path)}\n" for n, path in pairs).encode()

    # Files of the same names give other images if they are averaged.
    windows = f" {images.downsample}" if images.downsample > 1 else ""
    first = f"{images.shape} {rows}{windows}"
    return [first, *_in_blocks(len(names), listed)]


def _bytes(array: np.ndarray) -> Any:
    return np.ascontiguousarray(array).data


def _in_blocks(count: int, content: Callable[[slice], Any]) -> list[str]:
    """Hashes up to `BLOCKS` consecutive parts of `count` items, in threads."""
    parts = _parts(count)
    return thread_pool.in_threads(lambda i: _hash(content(parts[i])), range(len(parts)))


def _parts(count: int) -> list[slice]:
    block_size = max(1, -(-count // BLOCKS))
    return [slice(i, min(i + block_size, count)) for i in range(0, count, block_size)]


def _hash(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _of_pair(before: Fingerprint, now: Fingerprint) -> Iterator[str]:
    """Yields a phrase for each difference between two fingerprints of one split."""
    if before == now:
        return
    counts = before["examples"], now["examples"]
    if counts[0] != counts[1]:
        yield f"{counts[0]} examples before, {counts[1]} now"
    classes = sorted(before["by_class"].keys() | now["by_class"].keys(), key=int)
    pairs = [
        (c, before["by_class"].get(c, 0), now["by_class"].get(c, 0)) for c in classes
    ]
    changed_classes = [f"{c} had {a} and has {b}" for c, a, b in pairs if a != b]
    if changed_classes:
        others = (
            f" and {len(changed_classes) - 5} more" if len(changed_classes) > 5 else ""
        )
        yield f"class {', class '.join(changed_classes[:5])}{others}"
    if counts[0] != counts[1]:
        return
    if before["labels"] != now["labels"]:
        yield f"labels differ {_where(before['labels'], now['labels'], counts[0])}"
    (shape, *old), (other, *new) = before["images"], now["images"]
    if shape != other:
        yield f"images of {shape} before, of {other} now"
    elif old != new:
        yield f"images differ {_where(old, new, counts[0])}"


def _where(before: list[str], now: list[str], count: int) -> str:
    """Returns the range of examples that the differing blocks cover, as a phrase."""
    pairs = list(zip(before, now, strict=False))
    changed = [i for i, (a, b) in enumerate(pairs) if a != b]
    if len(before) != len(now) or len(_parts(count)) != len(pairs):
        return "in the number or sizes of their files"
    first, last = _parts(count)[changed[0]], _parts(count)[changed[-1]]
    return f"among examples {first.start} to {last.stop - 1}, counted from 0"
