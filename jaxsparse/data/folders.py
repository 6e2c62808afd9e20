"""Reads folders of images into arrays: a folder per split, with a folder per class.

  ROOT/NAME/train/CLASS/*.png
  ROOT/NAME/test/CLASS/*.png

CINIC-10 is published in this layout, and any dataset that is not prepared by TFDS can
use it. Nothing is downloaded. All files are decoded, in several processes if there are
many, into one array per split.
"""

import functools
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from jaxsparse.data import decoding, names, processes, tfds_folders
from jaxsparse.data.dataset import Examples

# Accepted folder names of each split.
SPLITS = {
    "train": ("train",),
    "validation": ("valid", "validation", "val"),
    "test": ("test",),
}
# Upper and lower case. The content, not the suffix, decides how a file is decoded.
SUFFIXES = (".png", ".jpg", ".jpeg")

# How to get the datasets that are published as folders, for messages.
ORIGINS = {
    "cinic10": "unpack CINIC-10.tar.gz, as its authors publish it (Darlow, Crowley, "
    "Antoniou and Storkey 2018, arXiv:1810.03505, https://doi.org/10.7488/ds/2448): "
    "folders train, valid and test of 10 classes of 9,000 PNG images each",
    "tiny_imagenet": "unpack tiny-imagenet-200.zip, as the Stanford course CS231n "
    "publishes it, and call its folder tiny_imagenet: folder train of 200 classes of "
    "500 JPEG images each, and folder val of 10,000 with val_annotations.txt",
}

_NAME = re.compile(r"\w[\w.+-]*")


class Tree(NamedTuple):
    """Folders of the splits of a dataset.

    Attributes:
      train: folders of the training examples, in the order in which they are read.
      test: folder of the test examples.
    """

    train: tuple[Path, ...]
    test: Path


class Listing(NamedTuple):
    """Image files and labels of examples, row by row.

    Attributes:
      paths: the image file of each example.
      labels: the class of each example, counted from 0; int32.
    """

    paths: list[Path]
    labels: Int32[np.ndarray, " n"]


def is_there(name: str, *, data_dir: str | None) -> bool:
    """Returns whether a dataset of this name has a folder of training images.

    Args:
      name: name of the dataset's folder in `data_dir`.
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.

    Returns:
      True if NAME/train exists; False also for names that cannot be a folder here.
    """
    if not _NAME.fullmatch(name):
        return False
    return (names.root_folder(data_dir) / name / "train").is_dir()


def find(name: str, *, data_dir: str | None, with_validation: bool = False) -> Tree:
    """Finds the folders of a dataset's splits, without listing their content.

    Args:
      name: name of the dataset's folder in `data_dir`.
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.
      with_validation: whether the validation split is part of the training set. If
        False, it is the test set if there is no test split; otherwise it is not used.

    Returns:
      The folders of the training examples and the folder of the test examples.

    Raises:
      DatasetNotPrepared: if a split is missing; the message says which, and what to do.
      ValueError: if the validation split exists under two names.
    """
    folder = names.root_folder(data_dir) / name
    existing = {split: _only(folder, choices) for split, choices in SPLITS.items()}
    needed = ["train", "validation", "test"] if with_validation else ["train", "test"]
    if not with_validation:
        existing["test"] = existing["test"] or existing["validation"]
    missing = [SPLITS[split][0] for split in needed if existing[split] is None]
    if missing:
        raise tfds_folders.DatasetNotPrepared(explain(name, folder, missing))
    *train, test = [existing[split] for split in needed]
    return Tree(tuple(train), test)


def _only(folder: Path, choices: tuple[str, ...]) -> Path | None:
    """Returns the only one of several possible folders that exists, or None."""
    existing = [folder / choice for choice in choices if (folder / choice).is_dir()]
    if len(existing) > 1:
        raise ValueError(
            f"{folder}: expected one of {', '.join(choices)}, got "
            f"{' and '.join(path.name for path in existing)}; move one of them"
        )
    return existing[0] if existing else None


def explain(name: str, folder: Path, missing: list[str]) -> str:
    """Returns the message about missing splits of a dataset, with the remedies.

    Args:
      name: name of the dataset.
      folder: folder of the dataset.
      missing: names of the missing splits.
    """
    origin = ORIGINS.get(name, "put PNG or JPEG images there")
    return (
        f"config.data.name: expected folders {folder}/SPLIT/CLASS of images for the "
        f"dataset {name!r}, got no {' and no '.join(missing)}.\n"
        "Do one of these:\n"
        "  - name a folder with these: --config.data.dir=FOLDER (or set "
        f"TFDS_DATA_DIR), for FOLDER/{name}/SPLIT/CLASS\n"
        f"  - {origin}"
    )


def _visible(folder: Path) -> list[str]:
    """Lists the names in a folder, sorted by code point, without hidden ones."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def _list_classes(folder: Path) -> list[str]:
    classes = _visible(folder)
    if not classes:
        raise ValueError(
            f"{folder}: expected a folder of images for each class, got an empty "
            "folder; unpack it again"
        )
    return classes


def list_images(folder: Path) -> list[Path]:
    """Lists the images of a folder, sorted by file name.

    Args:
      folder: folder of images alone; hidden files and folders are skipped.

    Returns:
      Paths of the images, at least one.

    Raises:
      ValueError: if `folder` is not a folder, has no images, or contains anything else;
        the message names it.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: expected only folders, one per class, got a file; move it into "
            "the folder of its class, or elsewhere"
        )
    paths = [folder / name for name in _visible(folder)]
    others = [path for path in paths if path.suffix.lower() not in SUFFIXES]
    if others:
        raise ValueError(
            f"{others[0]}: expected only images, {', '.join(SUFFIXES)}, in the folder "
            "of a class, got another file or a folder; move it"
        )
    if not paths:
        raise ValueError(
            f"{folder}: expected images of the class, got none; unpack it again, or "
            "remove the class from all splits"
        )
    return paths


def _list_split(folder: Path, classes: list[str]) -> Listing:
    """Lists a split, sorted by class and then by file name."""
    names = _visible(folder)
    differing = sorted(set(names) ^ set(classes))
    if differing:
        raise ValueError(
            f"{folder}: expected the {len(classes)} classes of train, got "
            f"{len(names)}, which differ in {differing[:5]}; unpack it again"
        )
    return list_by_class([folder / name for name in classes])


def list_by_class(class_folders: list[Path]) -> Listing:
    """Lists images, sorted by class and then by file name.

    Args:
      class_folders: the folder of each class, in the order of the labels.

    Returns:
      Paths and labels of all images.

    Raises:
      ValueError: if a folder does not exist, has no images, or contains anything else;
        the message names it.
    """
    by_class = [list_images(folder) for folder in class_folders]
    labels = np.repeat(
        np.arange(len(class_folders)), [len(paths) for paths in by_class]
    )
    paths = [path for paths in by_class for path in paths]
    return Listing(paths, labels.astype(np.int32))


def read(
    name: str, *, data_dir: str | None, with_validation: bool = False
) -> tuple[Examples, Examples, int]:
    """Reads all images of a dataset from folders into memory.

    The classes are the folders of the training split, sorted by code point; every split
    must have the same classes. Examples are sorted by class and then by file name.
    Hidden files and folders (names that begin with a dot) are skipped, and links are
    followed. Anything else that is not an image is an error.

    All images must have the size of the first. If all images are grayscale, the result
    has one channel. Otherwise it has three, which are equal for grayscale images.
    Palette images are converted to RGB. Transparency, CMYK and 16-bit grayscale are
    errors; Pillow reduces 16-bit colors to their upper 8 bits. EXIF rotations are not
    applied.

    Args:
      name: name of the dataset's folder in `data_dir`.
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.
      with_validation: whether the validation split (a folder called valid, validation
        or val) is part of the training set, after the training split. If False, it is
        the test set if there is no test split; otherwise it is not read.

    Returns:
      Training examples, test examples and the number of classes.

    Raises:
      DatasetNotPrepared: if a split is missing.
      ValueError: if the folders do not have this layout, or an image is damaged;
        the message names the folder or the image.
    """
    train, test, classes = list_tree(
        name, data_dir=data_dir, with_validation=with_validation
    )
    return *decode(train, test), classes


def list_tree(
    name: str, *, data_dir: str | None, with_validation: bool = False
) -> tuple[Listing, Listing, int]:
    """Lists the files and labels that `read` reads, without opening an image.

    Args:
      name: name of the dataset's folder in `data_dir`.
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.
      with_validation: whether the validation split is part of the training set, after
        the training split. If False, it is the test set if there is no test split;
        otherwise it is not listed.

    Returns:
      Training examples, test examples and the number of classes.

    Raises:
      DatasetNotPrepared: if a split is missing.
      ValueError: if the splits have different classes, or a folder of a class is empty
        or contains anything but images.
    """
    tree = find(name, data_dir=data_dir, with_validation=with_validation)
    classes = _list_classes(tree.train[0])
    parts = [_list_split(folder, classes) for folder in tree.train]
    paths = [path for part in parts for path in part.paths]
    train = Listing(paths, np.concatenate([part.labels for part in parts]))
    validation = _only(tree.test.parent, SPLITS["validation"])
    # A published test split may have no labels, and so no folders of classes. If there
    # is a labeled validation split, the error suggests to test on that one.
    try:
        return train, _list_split(tree.test, classes), len(classes)
    except ValueError as error:
        if with_validation or validation in (None, tree.test):
            raise
        hint = (
            f"if it has no labels, move it, and {validation.name} becomes the test set"
        )
        raise ValueError(f"{error}; or, {hint}") from error


def decode(train: Listing, test: Listing) -> tuple[Examples, Examples]:
    """Decodes the images of each split into one array.

    Args:
      train: training examples: 8-bit PNG or JPEG images without transparency, all of
        the size of the first.
      test: test examples, with images of the same kind and size.

    Returns:
      Training and test examples, with one channel if all images are grayscale, and with
      three otherwise.

    Raises:
      ValueError: if an image is damaged, of another kind or of another size; the
        message names it.
    """
    shape = decoding.file(train.paths[0])[0].shape
    images = [np.empty((len(x.paths), *shape), np.uint8) for x in (train, test)]
    # A list, not a generator: `any` must not skip the second call after a True.
    if not any([_fill(train.paths, images[0]), _fill(test.paths, images[1])]):
        images = [np.ascontiguousarray(array[..., :1]) for array in images]
    return Examples(images[0], train.labels), Examples(images[1], test.labels)


def _fill(paths: list[Path], into: UInt8[np.ndarray, "n h w 3"]) -> bool:
    """Decodes images into an array; returns whether any of them has colors."""
    decode = functools.partial(decoding.files, shape=into.shape[1:])
    start, any_color = 0, False
    for images, has_color in processes.map_parts(decode, paths):
        into[start : start + len(images)] = images
        start += len(images)
        any_color |= has_color
    return any_color
