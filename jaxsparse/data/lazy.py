"""Opens datasets whose images stay in their files: folders, and TFDS record files.

Images may differ in size. `folders` lists trees of images, and `record_files` reads
single records of datasets prepared by TFDS. No image is read before it is accessed, see
`image_files`.
"""

import functools
from pathlib import Path

import numpy as np
from tensorflow_datasets.core import DatasetInfo

from jaxsparse.data import (
    folders,
    labels,
    record_files,
    tfds_folders,
    tfds_info,
)
from jaxsparse.data.dataset import Examples
from jaxsparse.data.image_files import StoredImages
from jaxsparse.data.image_sources import Files

UNLABELED = -1  # label that TFDS writes if the true one is not published


def _records(name: str, info: DatasetInfo, split: str) -> record_files.Records:
    described = info.splits[split]
    paths = [str(path) for path in described.filepaths]
    kind = info.file_format.value
    return record_files.Records(
        paths,
        described.shard_lengths,
        again=tfds_folders.again(name, Path(paths[0]).parent),
        open_shard=record_files.SHARDS[kind],
        stays_open=kind in record_files.STAY_OPEN,
    )


def _test_split(name: str, info: DatasetInfo, test: str) -> str:
    """Returns the test split: "validation" if the test split has no labels.

    This is the case for ImageNet, where papers report results on the validation split.
    Only the first record is checked.
    """
    if test == "validation" or "validation" not in info.splits:
        return test
    unlabeled = _records(name, info, test).label(0) == UNLABELED
    return "validation" if unlabeled else test


def _open_split(name: str, info: DatasetInfo, split: str, *, size: int) -> Examples:
    records = _records(name, info, split)
    split_labels = labels.read(records, classes=info.features["label"].num_classes)
    return Examples(
        StoredImages(records, np.arange(len(split_labels)), size), split_labels
    )


def prepared(
    name: str, *, data_dir: str | None, size: int
) -> tuple[Examples, Examples, int]:
    """Opens a dataset that TFDS has prepared; its images stay in their files.

    Args:
      name: TFDS name, optionally with a config or a version: "imagenet2012",
        "emnist/letters", "cifar10:3.0.2". Without a version, the latest one is opened.
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.
      size: height and width of decoded images in pixels, at least 1.

    Returns:
      Training examples, test examples and the number of classes. Examples are in the
      order of the files. The validation split is the test set if there is no test split
      or if the labels of the test split are not published.

    Raises:
      DatasetNotPrepared: if it is not in the folder; nothing is ever downloaded.
      ValueError: if the dataset is not one of image classification, if its file format
        has no access to single records, or if a file is damaged.
    """
    info, test = tfds_info.describe(name, data_dir=data_dir, of_all_sizes=True)
    kind = info.file_format.value
    if kind not in record_files.SHARDS:
        raise ValueError(
            f"size: expected 0 for {name!r}, whose {kind} files have no access to "
            f"single records, got {size}; prepare it again as "
            f"{' or '.join(record_files.SHARDS)} (experiments/prepare_data.py "
            "--format=array_record)"
        )
    open_split = functools.partial(_open_split, name, info, size=size)
    classes = info.features["label"].num_classes
    test_examples = open_split(_test_split(name, info, test))
    return open_split("train"), test_examples, classes


def tree(
    name: str, *, data_dir: str | None, size: int
) -> tuple[Examples, Examples, int]:
    """Opens folders of images; the images stay in their files.

    Args:
      name: name of the dataset's folder in `data_dir`, with the layout that `folders`
        describes.
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.
      size: height and width of decoded images in pixels, at least 1.

    Returns:
      Training examples, test examples and the number of classes, in the same order as
      from `folders.read`. Unlike there, images always have three channels, and files
      may differ in size, be CMYK, or have transparency.

    Raises:
      DatasetNotPrepared: if a split is missing.
      ValueError: if the splits have different classes, or a folder of a class is empty
        or contains anything but images.
    """
    train, test, classes = folders.list_tree(name, data_dir=data_dir)
    listed = (
        Examples(
            StoredImages(
                Files(tuple(map(str, part.paths))), np.arange(len(part.labels)), size
            ),
            part.labels,
        )
        for part in (train, test)
    )
    return *listed, classes
