"""Sets of images of all sizes, listed and not read: trees of folders, and TFDS's files.

A tree is `folders`'s; of what TFDS has prepared, `shards` gives single records. Neither
holds more of an image than its name, until it is asked for (`stored`).
"""

import functools
from pathlib import Path

import numpy as np
from tensorflow_datasets.core import DatasetInfo

from jaxsparse.data import folders, shards, sources
from jaxsparse.data.examples import Examples
from jaxsparse.data.stored import Files, StoredImages


def _open_split(name: str, info: DatasetInfo, split: str, *, size: int) -> Examples:
    described = info.splits[split]
    paths = [str(path) for path in described.filepaths]
    records = shards.Records(
        paths,
        described.shard_lengths,
        again=sources.again(name, Path(paths[0]).parent),
        open_shard=shards.SHARDS[info.file_format.value],
    )
    found = shards.labels(records, classes=info.features["label"].num_classes)
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
      As `sources.read`, but that images stay in files.

    Raises:
      DatasetNotPrepared: if it is not in the folder; nothing is ever downloaded.
      ValueError: if it is no image classification, if its files give no single
        record, or if one is damaged.
    """
    info, test = sources.describe(name, data_dir=data_dir, of_all_sizes=True)
    kind = info.file_format.value
    if kind not in shards.SHARDS:
        raise ValueError(
            f"data.size: came {size} for {name!r}, whose files are {kind}, which give "
            f"no single record; wanted {' or '.join(shards.SHARDS)}; prepare it again "
            "(experiments/prepare_data.py --format=array_record)"
        )
    open_split = functools.partial(_open_split, name, info, size=size)
    classes = info.features["label"].num_classes
    return open_split("train"), open_split(test), classes


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
