"""Folders of images, read into arrays: one folder a split, in it one a class.

  ROOT/NAME/train/CLASS/*.png
  ROOT/NAME/test/CLASS/*.png

This is how CINIC-10 is published, and how any dataset that TFDS has not prepared can be
brought along. Nothing is downloaded and nothing kept: files are decoded one by one into
the one array that they fill; threads do not help with small images.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image

from jaxsparse import metrics_log
from jaxsparse.data import sources
from jaxsparse.data.dataset import Examples

# What the folder of a split may be called.
SPLITS = {
    "train": ("train",),
    "validation": ("valid", "validation", "val"),
    "test": ("test",),
}
SUFFIXES = (".png", ".jpg", ".jpeg")  # in any case; the content says which it is

# Where a dataset that comes as such folders is to be had.
ORIGINS = {
    "cinic10": "unpack CINIC-10.tar.gz, as its authors publish it (Darlow, Crowley, "
    "Antoniou and Storkey 2018, arXiv:1810.03505, https://doi.org/10.7488/ds/2448): "
    "folders train, valid and test of 10 classes of 9,000 PNG images each",
    "tiny_imagenet": "unpack tiny-imagenet-200.zip, as the Stanford course CS231n "
    "publishes it, and call its folder tiny_imagenet: folder train of 200 classes of "
    "500 JPEG images each, and folder val of 10,000 with val_annotations.txt",
}

_NAME = re.compile(r"\w[\w.+-]*")
_COLOURED = {"1": False, "L": False, "RGB": True, "P": True}  # by Pillow's modes


class Tree(NamedTuple):
    """Where the images of a dataset lie.

    Attributes:
      train: folders of the training examples, in the order they are read in.
      test: folder of the test examples.
    """

    train: tuple[Path, ...]
    test: Path


class Listing(NamedTuple):
    """The files of some examples and their labels, row by row.

    Attributes:
      paths: images.
      labels: classes, counted from 0.
    """

    paths: list[Path]
    labels: Int32[np.ndarray, " n"]


def is_there(name: str, *, data_dir: str | None) -> bool:
    """Says whether there are folders of images of this name, at least to train on.

    Args:
      name: of a folder; what cannot be one is not there.
      data_dir: as for `sources.root_folder`.
    """
    if not _NAME.fullmatch(name):
        return False
    return (sources.root_folder(data_dir) / name / "train").is_dir()


def find(name: str, *, data_dir: str | None, with_validation: bool = False) -> Tree:
    """Finds the folders of a dataset, without a look at what they hold.

    Args:
      name: of the folder in `data_dir`.
      data_dir: as for `sources.root_folder`.
      with_validation: as for `read`.

    Returns:
      The folders to train on and the one to test on.

    Raises:
      DatasetNotPrepared: if one is missing; the message says which and what to do.
      ValueError: if the validation split is there under two names.
    """
    folder = sources.root_folder(data_dir) / name
    found = {split: _only(folder, choices) for split, choices in SPLITS.items()}
    wanted = ["train", "validation", "test"] if with_validation else ["train", "test"]
    if not with_validation:
        found["test"] = found["test"] or found["validation"]
    missing = [SPLITS[split][0] for split in wanted if found[split] is None]
    if missing:
        raise sources.DatasetNotPrepared(explain(name, folder, missing))
    *train, test = [found[split] for split in wanted]
    return Tree(tuple(train), test)


def _only(folder: Path, choices: tuple[str, ...]) -> Path | None:
    """Returns the one of some folders that is there, or None."""
    found = [folder / choice for choice in choices if (folder / choice).is_dir()]
    if len(found) > 1:
        raise ValueError(
            f"{folder}: has {' and '.join(path.name for path in found)}; wanted one of "
            "them; move the other away"
        )
    return found[0] if found else None


def explain(name: str, folder: Path, missing: list[str]) -> str:
    """Words what is missing of a dataset, and what to do."""
    origin = ORIGINS.get(name, "put PNG or JPEG images there")
    return (
        f"data.name: the dataset {name!r} is not whole in {folder}: there is no "
        f"{' and no '.join(missing)}; wanted folders {folder}/SPLIT/CLASS of images.\n"
        "Do one of these:\n"
        "  - name a folder with these: --config.data.dir=FOLDER (or set "
        f"TFDS_DATA_DIR), for FOLDER/{name}/SPLIT/CLASS\n"
        f"  - {origin}"
    )


def _visible(folder: Path) -> list[str]:
    """Lists a folder by code point; what is hidden is not there."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def _list_classes(folder: Path) -> list[str]:
    classes = _visible(folder)
    if not classes:
        raise ValueError(
            f"{folder}: is empty; wanted a folder of images for each class; unpack it "
            "again"
        )
    return classes


def list_images(folder: Path) -> list[Path]:
    """Lists the images of a folder by file name, and refuses everything else.

    Raises:
      ValueError: naming what is no image.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: a file beside the folders of classes; wanted folders only; "
            "move it into its class, or away"
        )
    paths = [folder / name for name in _visible(folder)]
    strange = [path for path in paths if path.suffix.lower() not in SUFFIXES]
    if strange:
        raise ValueError(
            f"{strange[0]}: no image by its name; wanted {', '.join(SUFFIXES)} and no "
            "folders in the folder of a class; move it away"
        )
    if not paths:
        raise ValueError(
            f"{folder}: has no images; wanted some of each class; unpack it again, or "
            "remove the class from all splits"
        )
    return paths


def _list_split(folder: Path, classes: list[str]) -> Listing:
    """Lists a split by class, then by file name."""
    names = _visible(folder)
    differing = sorted(set(names) ^ set(classes))
    if differing:
        raise ValueError(
            f"{folder}: has {len(names)} classes, which differ in {differing[:5]} from "
            f"the {len(classes)} of train; wanted a folder for each class, the same in "
            "every split; unpack it again"
        )
    return list_by_class([folder / name for name in classes])


def list_by_class(each: list[Path]) -> Listing:
    """Lists images by class, then by file name.

    Args:
      each: folder of every class, in the order of their labels.

    Raises:
      ValueError: naming what is no image.
    """
    by_class = [list_images(folder) for folder in each]
    labels = np.repeat(np.arange(len(each)), [len(paths) for paths in by_class])
    every = [path for paths in by_class for path in paths]
    return Listing(every, labels.astype(np.int32))


def _decode(path: Path) -> tuple[UInt8[np.ndarray, "h w 3"], bool]:
    """Decodes an image; also says whether it has colours."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            mode, clear = picture.mode, "transparency" in picture.info
            wanted = mode in _COLOURED and not clear
            pixels = np.asarray(picture.convert("RGB")) if wanted else None
    except Exception as error:  # Pillow raises OSError, SyntaxError and others
        if metrics_log.is_of_machine(error):
            raise
        raise ValueError(
            f"{path}: is damaged or missing: {error}; wanted a PNG or JPEG image; "
            "unpack it again"
        ) from error
    if pixels is None:
        raise ValueError(
            f"{path}: is {mode}{' with transparency' * clear}, as Pillow says; wanted "
            "8 bits in 1 channel (grey) or 3 (red, green, blue); convert it"
        )
    return pixels, _COLOURED[mode]


def _fill(paths: list[Path], into: UInt8[np.ndarray, "n h w 3"]) -> bool:
    """Decodes images into an array; says whether any has colours."""
    any_coloured = False
    for i, path in enumerate(paths):
        pixels, coloured = _decode(path)
        if pixels.shape != into.shape[1:]:
            raise ValueError(
                f"{path}: has {pixels.shape[0]} by {pixels.shape[1]} pixels; wanted "
                f"{into.shape[1]} by {into.shape[2]}, as the first image has; bring "
                "all to one size"
            )
        into[i] = pixels
        any_coloured |= coloured
    return any_coloured


def read(
    name: str, *, data_dir: str | None, with_validation: bool = False
) -> tuple[Examples, Examples, int]:
    """Reads folders of images whole.

    Classes are the folders of the training split, in the order of their names by code
    point; every split must have the same. Examples are in the order of their classes,
    then of their file names. Files and folders whose names begin with a dot are passed
    over, links are followed, and anything else that is no image is refused. All images
    have the size of the first. They are grey if all of them are, and else all have
    three channels, equal in those that are grey themselves. Palettes become colours.
    Transparency, CMYK and grey of 16 bits are refused; of colours of 16 bits Pillow
    keeps the upper 8. A rotation that a JPEG's camera noted is not applied.

    Args:
      name: of the folder in `data_dir`.
      data_dir: as for `sources.root_folder`.
      with_validation: whether the validation split (valid, validation or val) is part
        of the training set, after the training split. If not, it is not read, or is
        the test set where there is no other.

    Returns:
      Training examples, test examples and the number of classes.

    Raises:
      DatasetNotPrepared: if a split is missing.
      ValueError: if the folders are not as said or an image is damaged, naming it.
    """
    train, test, classes = list_tree(
        name, data_dir=data_dir, with_validation=with_validation
    )
    return *decode(train, test), classes


def list_tree(
    name: str, *, data_dir: str | None, with_validation: bool = False
) -> tuple[Listing, Listing, int]:
    """Lists what `read` would read, and the number of classes; opens no image."""
    tree = find(name, data_dir=data_dir, with_validation=with_validation)
    classes = _list_classes(tree.train[0])
    parts = [_list_split(folder, classes) for folder in tree.train]
    paths = [path for part in parts for path in part.paths]
    train = Listing(paths, np.concatenate([part.labels for part in parts]))
    spare = _only(tree.test.parent, SPLITS["validation"])
    try:
        return train, _list_split(tree.test, classes), len(classes)
    except ValueError as error:
        if with_validation or spare in (None, tree.test):
            raise
        hint = f"if it has no labels, move it away, and {spare.name} is tested on"
        raise ValueError(f"{error}; or, {hint}") from error


def decode(train: Listing, test: Listing) -> tuple[Examples, Examples]:
    """Decodes images into one array a split; see `read` for what is accepted.

    Raises:
      ValueError: naming an image that is damaged or of another size.
    """
    shape = _decode(train.paths[0])[0].shape
    images = [np.empty((len(x.paths), *shape), np.uint8) for x in (train, test)]
    # A list, so that all are filled, whatever the first of them holds.
    if not any([_fill(train.paths, images[0]), _fill(test.paths, images[1])]):
        images = [np.ascontiguousarray(array[..., :1]) for array in images]
    return Examples(images[0], train.labels), Examples(images[1], test.labels)
