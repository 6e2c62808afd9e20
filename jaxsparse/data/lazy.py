"""Sets of images of all sizes, listed and not read: trees of folders, and TFDS's files.

A tree is `folders`'s; of what TFDS has prepared, `shards` gives single records. Neither
holds more of an image than its name, until it is asked for (`stored`).
"""

import functools
from pathlib import Path

import numpy as np
from tensorflow_datasets.core import DatasetInfo

from jaxsparse.data import folders, labels, record_files, sources
from jaxsparse.data.dataset import Examples
from jaxsparse.data.image_files import Files, StoredImages

UNLABELLED = -1  # what TFDS writes for a label that is not published


def _records(name: str, info: DatasetInfo, split: str) -> record_files.Records:
    described = info.splits[split]
    paths = [str(path) for path in described.filepaths]
    kind = info.file_format.value
    return record_files.Records(
        paths,
        described.shard_lengths,
        again=sources.again(name, Path(paths[0]).parent),
        open_shard=record_files.SHARDS[kind],
        stays_open=kind in record_files.STAY_OPEN,
    )


def _tested(name: str, info: DatasetInfo, test: str) -> str:
    """Returns the split to test on: validation where the test split has no labels.

    So it is of ImageNet, whose validation split is what papers report. The first record
    tells.
    """
    if test == "validation" or "validation" not in info.splits:
        return test
    unlabelled = _records(name, info, test).label(0) == UNLABELLED
    return "validation" if unlabelled else test


def _open_split(name: str, info: DatasetInfo, split: str, *, size: int) -> Examples:
    records = _records(name, info, split)
    found = labels.read(records, classes=info.features["label"].num_classes)
    return Examples(StoredImages(records, np.arange(len(found)), size), found)


def prepared(
    name: str, *, data_dir: str | None, size: int
) -> tuple[Examples, Examples, int]:
    """Opens a dataset that TFDS has prepared.

    Args:
      name: as for `sources.find`.
      data_dir: as for `sources.root_folder`.
      size: height and width of images once they are decoded.

    Returns:
      As `sources.read`, but that images stay in files, and that the validation split
      is the test set, too, where labels of the test split are not published.

    Raises:
      DatasetNotPrepared: if it is not in the folder; nothing is ever downloaded.
      ValueError: if it is no image classification, if its files give no single
        record, or if one is damaged.
    """
    info, test = sources.describe(name, data_dir=data_dir, of_all_sizes=True)
    kind = info.file_format.value
    if kind not in record_files.SHARDS:
        raise ValueError(
            f"size: came {size} for {name!r}, whose files are {kind}, which give "
            f"no single record; wanted {' or '.join(record_files.SHARDS)}; prepare it "
            "again (experiments/prepare_data.py --format=array_record)"
        )
    open_split = functools.partial(_open_split, name, info, size=size)
    classes = info.features["label"].num_classes
    tested = open_split(_tested(name, info, test))
    return open_split("train"), tested, classes


def tree(
    name: str, *, data_dir: str | None, size: int
) -> tuple[Examples, Examples, int]:
    """Lists folders of images; opens none.

    Args:
      name: as for `folders.read`.
      data_dir: as for `sources.root_folder`.
      size: height and width of images once they are decoded.

    Returns:
      As `folders.read`, but that images stay in files, have three channels always, and
      may be of all sizes, and of CMYK or transparent.
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
