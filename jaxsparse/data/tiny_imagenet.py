"""Tiny ImageNet: 100,000 images of 64 by 64 pixels, 200 classes, as it is published.

  ROOT/tiny_imagenet/train/CLASS/images/*.JPEG
  ROOT/tiny_imagenet/val/images/*.JPEG
  ROOT/tiny_imagenet/val/val_annotations.txt

Images may also lie in val/CLASS, and without the folders called images, as many have
moved them. The labels of the test split were never published: as in all papers, the
10,000 images of the validation split are what results are reported on.
"""

from pathlib import Path

import numpy as np

from jaxsparse.data import folders, sources
from jaxsparse.data.dataset import Examples

NAME = "tiny_imagenet"


def find(*, data_dir: str | None) -> Path:
    """Finds the folder, without a look at the images.

    Args:
      data_dir: as for `sources.root_folder`.

    Raises:
      DatasetNotPrepared: if a split is missing; the message says which.
    """
    folder = sources.root_folder(data_dir) / NAME
    missing = [split for split in ("train", "val") if not (folder / split).is_dir()]
    if missing:
        raise sources.DatasetNotPrepared(folders.explain(NAME, folder, missing))
    return folder


def read(*, data_dir: str | None) -> tuple[Examples, Examples, int]:
    """Reads Tiny ImageNet whole, 1.3 GB.

    Args:
      data_dir: as for `sources.root_folder`.

    Returns:
      Training examples, and as test examples those of the validation split, by class
      or as the images are called; and the number of classes, which are in the order of
      their names.

    Raises:
      DatasetNotPrepared: if a split is missing.
      ValueError: if the folders are not as said or an image is damaged, naming it.
    """
    folder = find(data_dir=data_dir)
    classes = _classes(folder / "train")
    train = _list_classes(folder / "train", classes)
    if (folder / "val" / "images").is_dir():
        test = _list_annotated(folder, classes)
    else:
        test = _list_classes(folder / "val", classes)
    return *folders.decode(train, test), len(classes)


def _classes(folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.glob("[!.]*")) if path.is_dir()]


def _list_classes(folder: Path, classes: list[str]) -> folders.Listing:
    """Lists a split that has a folder for each class."""
    differing = sorted(set(_classes(folder)) ^ set(classes))
    if differing or not classes:
        raise ValueError(
            f"{folder}: has classes that differ in {differing[:5]} from the "
            f"{len(classes)} of train; wanted a folder for each class, the same in "
            "both splits; unpack it again"
        )
    each = [folder / name / "images" for name in classes]
    return folders.list_by_class(
        [inner if inner.is_dir() else inner.parent for inner in each]
    )


def _list_annotated(folder: Path, classes: list[str]) -> folders.Listing:
    """Lists the validation split by file name, with the labels of its annotations."""
    path, images = folder / "val" / "val_annotations.txt", folder / "val" / "images"
    if not path.is_file():
        raise ValueError(f"{path}: is not there; wanted the labels of {images}")
    # A line is the file, its class, and a box that nobody asks for.
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    named = {line[0]: line[1] for line in lines if len(line) > 1}
    there = folders.list_images(images)
    differing = sorted({image.name for image in there} ^ named.keys())
    if differing or len(named) < len(lines):
        raise ValueError(
            f"{path}: has {len(named)} labels in {len(lines)} lines for {len(there)} "
            f"images, which differ in {differing[:5]}; wanted one line for each image "
            f"of {images}; unpack it again"
        )
    unknown = sorted(set(named.values()) - set(classes))
    if unknown:
        raise ValueError(
            f"{path}: has the classes {unknown[:5]}, which {folder / 'train'} has not; "
            "wanted the same; unpack it again"
        )
    places = {name: place for place, name in enumerate(classes)}
    labels = [places[named[image.name]] for image in there]
    return folders.Listing(there, np.asarray(labels, np.int32))
