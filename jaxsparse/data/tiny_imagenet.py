"""Tiny ImageNet in its published layout: 100,000 images of 64x64 pixels, 200 classes.

  ROOT/tiny_imagenet/train/CLASS/images/*.JPEG
  ROOT/tiny_imagenet/val/images/*.JPEG
  ROOT/tiny_imagenet/val/val_annotations.txt

Images may also be in val/CLASS, and the folders called images may be missing: many
users rearrange the dataset that way. The labels of the test split were never published.
As in all papers, results are reported on the 10,000 images of the validation split.
"""

from pathlib import Path

import numpy as np

from jaxsparse.data import folders, names, tfds_folders
from jaxsparse.data.dataset import Examples

NAME = "tiny_imagenet"


def find(*, data_dir: str | None) -> Path:
    """Finds the folder of the dataset, without listing the images.

    Args:
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.

    Returns:
      The folder, which contains train and val.

    Raises:
      DatasetNotPrepared: if a split is missing; the message says which.
    """
    folder = names.root_folder(data_dir) / NAME
    missing = [split for split in ("train", "val") if not (folder / split).is_dir()]
    if missing:
        raise tfds_folders.DatasetNotPrepared(folders.explain(NAME, folder, missing))
    return folder


def read(*, data_dir: str | None) -> tuple[Examples, Examples, int]:
    """Reads Tiny ImageNet into memory, 1.3 GB.

    Args:
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.

    Returns:
      Training examples, test examples and the number of classes. The classes are sorted
      by name. Training examples are sorted by class and then by file name. The test
      examples are those of the validation split, sorted in the same way, or by file
      name if all of them are in val/images.

    Raises:
      DatasetNotPrepared: if a split is missing.
      ValueError: if the folders do not have this layout, or an image is damaged; the
        message names the folder or the image.
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
    """Lists a split that has a folder for each class, in the order of `classes`."""
    differing = sorted(set(_classes(folder)) ^ set(classes))
    if differing or not classes:
        raise ValueError(
            f"{folder}: expected the {len(classes)} classes of train, a folder for "
            f"each, got others, which differ in {differing[:5]}; unpack it again"
        )
    image_folders = [folder / name / "images" for name in classes]
    return folders.list_by_class(
        [inner if inner.is_dir() else inner.parent for inner in image_folders]
    )


def _list_annotated(folder: Path, classes: list[str]) -> folders.Listing:
    """Lists the validation split by file name, with the labels of its annotations."""
    path, images = folder / "val" / "val_annotations.txt", folder / "val" / "images"
    if not path.is_file():
        raise ValueError(f"{path}: expected the labels of {images}, got no file")
    # A line has the file name, the class, and a bounding box, which is not used.
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    class_of = {line[0]: line[1] for line in lines if len(line) > 1}
    image_paths = folders.list_images(images)
    differing = sorted({image.name for image in image_paths} ^ class_of.keys())
    if differing or len(class_of) < len(lines):
        raise ValueError(
            f"{path}: expected one line for each of the {len(image_paths)} images of "
            f"{images}, got {len(class_of)} labels in {len(lines)} lines, which differ "
            f"in {differing[:5]}; unpack it again"
        )
    unknown = sorted(set(class_of.values()) - set(classes))
    if unknown:
        raise ValueError(
            f"{path}: expected the classes of {folder / 'train'}, got also "
            f"{unknown[:5]}; unpack it again"
        )
    label_of = {name: label for label, name in enumerate(classes)}
    labels = [label_of[class_of[image.name]] for image in image_paths]
    return folders.Listing(image_paths, np.asarray(labels, np.int32))
