"""Reads datasets prepared by TFDS into arrays, without TensorFlow.

TFDS writes the same serialized examples in each of its file formats; only the framing
of the records differs (`tfds_records`). This module decodes all of them in the same
way. It never uses the network; `experiments/prepare_data.py` downloads and prepares
datasets.
"""

import functools
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from jaxsparse import metrics_log
from jaxsparse.data import decoding, processes, tfds_folders, tfds_info
from jaxsparse.data.dataset import Examples
from jaxsparse.data.tfds_records import RECORDS


def _read_shard(path: Path, info: tfds.core.DatasetInfo, into: Examples) -> None:
    """Reads a file into `into`, which has one row for each record expected in it."""
    records = list(RECORDS[info.file_format.value](str(path)))
    if len(records) != len(into.labels):
        raise ValueError(f"{len(records)} records, not {len(into.labels)}")
    classes = info.features["label"].num_classes
    encoded = []
    for i, record in enumerate(records):
        feature = tf_example_pb2.Example.FromString(record).features.feature
        encoded.append(feature["image"].bytes_list.value[0])
        into.labels[i] = feature["label"].int64_list.value[0]
    del records
    # Pillow, since the decoder of TFDS takes twice as long and gives other results if
    # OpenCV is installed.
    decode = functools.partial(decoding.records, shape=info.features["image"].shape)
    start = 0
    for images in processes.map_parts(decode, encoded):
        into.images[start : start + len(images)] = images
        start += len(images)
    if not ((into.labels >= 0) & (into.labels < classes)).all():
        raise ValueError(f"a label outside 0 to {classes - 1}")


def _read_split(name: str, info: tfds.core.DatasetInfo, split: str) -> Examples:
    described = info.splits[split]
    shape = (described.num_examples, *info.features["image"].shape)
    # A damaged description may claim any number of examples.
    try:
        examples = Examples(np.empty(shape, np.uint8), np.empty(shape[0], np.int32))
    except (MemoryError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{name}: expected a dataset_info.json with the number of examples in the "
            f"files, got {shape[0]} examples of shape {shape[1:]} in {split}, more "
            "than fit into memory; "
            f"{tfds_folders.again(name, Path(described.filepaths[0]).parent)}"
        ) from error
    start = 0
    for path, length in zip(
        map(Path, described.filepaths), described.shard_lengths, strict=True
    ):
        rows = slice(start, start + length)
        start += length
        try:
            _read_shard(
                path, info, Examples(examples.images[rows], examples.labels[rows])
            )
        except Exception as error:  # four libraries, each with its own exceptions
            if metrics_log.is_of_machine(error):
                raise
            raise ValueError(
                f"{name}: {path}: expected {length} examples, got a damaged or missing "
                f"file ({error}); {tfds_folders.again(name, path.parent)}"
            ) from error
    return examples


def read(name: str, *, data_dir: str | None) -> tuple[Examples, Examples, int]:
    """Reads an image classification dataset prepared by TFDS into memory.

    Args:
      name: TFDS name, optionally with a config or a version: "cifar10",
        "emnist/letters", "cifar10:3.0.2". Without a version, the latest one is read.
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.

    Returns:
      Training examples, test examples and the number of classes. Examples are in the
      order of the files. The validation split is the test set of a dataset without a
      test split (such as imagenette).

    Raises:
      DatasetNotPrepared: if it is not in the folder; nothing is ever downloaded.
      ValueError: if it is not an image classification dataset with images of one size,
        or if a file is damaged.
    """
    info, test = tfds_info.describe(name, data_dir=data_dir)
    classes = info.features["label"].num_classes
    return _read_split(name, info, "train"), _read_split(name, info, test), classes
