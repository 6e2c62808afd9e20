"""Reads datasets prepared by TFDS into arrays, without TensorFlow.

TFDS writes the same serialized examples in each of its file formats; only the framing
of the records differs. This module reads the records of parquet, array_record and
tfrecord files and decodes all of them in the same way. It never uses the network;
`experiments/prepare_data.py` downloads and prepares datasets.
"""

import contextlib
import functools
import json
import re
import shlex
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from jaxsparse import extras, metrics_log
from jaxsparse.data import decoding, names, processes
from jaxsparse.data.dataset import Examples

# Files that must be downloaded by hand before TFDS can prepare a dataset.
BY_HAND = {"imagenet2012": ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")}

_NAME = re.compile(r"(?P<folder>[a-z0-9_]+(/[\w.+-]+)?)(:(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")  # not "3.0.2.incompleteXYZ"
MAX_EXAMPLES = 10**12  # per split; a larger number means a damaged description


class DatasetNotPrepared(ValueError):
    """A dataset is not in the folder; the message says how to get it."""


def find(name: str, *, data_dir: str | None) -> Path:
    """Finds the folder of a prepared dataset, in milliseconds and without network use.

    Args:
      name: TFDS name, optionally with a config or a version: "cifar10",
        "emnist/letters", "cifar10:3.0.2". Without a version, the latest one is taken.
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.

    Returns:
      The folder of one version, which contains dataset_info.json.

    Raises:
      DatasetNotPrepared: if there is none; the message lists the remedies.
    """
    root = names.root_folder(data_dir)
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise DatasetNotPrepared(_explain(name, root))
    versions = [
        path.parent
        for path in (root / parts["folder"]).glob("*/dataset_info.json")
        if _VERSION.fullmatch(path.parent.name)
        and parts["version"] in (None, path.parent.name)
    ]
    if not versions:
        raise DatasetNotPrepared(_explain(name, root))
    # Compared as numbers: version 3.0.10 is later than 3.0.9.
    return max(versions, key=lambda path: [int(x) for x in path.name.split(".")])


def _explain(name: str, root: Path) -> str:
    if misspelled := names.doubt(name, data_dir=str(root)):
        return misspelled
    files = BY_HAND.get(name.partition(":")[0])
    by_hand = ""
    if files:
        by_hand = (
            f"; TFDS does not download it: put {' and '.join(files)} into "
            f"{root / 'downloads' / 'manual'} first, or name their folder by "
            "--manual_dir"
        )
    arguments = f"--dataset={shlex.quote(name)} --data_dir={shlex.quote(str(root))}"
    return (
        f"data.name: expected the dataset {name!r}, prepared by TFDS, in "
        f"{root / name.partition(':')[0]}/VERSION, got no such folder.\n"
        "Do one of these:\n"
        "  - name a folder that holds it: --config.data.dir=FOLDER (or set "
        "TFDS_DATA_DIR)\n"
        "  - download and prepare it: pip install -e '.[prepare]' && python "
        f"experiments/prepare_data.py {arguments}{by_hand}\n"
        "  - put folders of images there: "
        f"{root / name.partition(':')[0]}/train/CLASS/*.png, and so for test\n"
        "  - use the digits that come embedded, no download: "
        "--config=configs/lth_digits.py"
    )


def _parquet(path: str) -> list[bytes]:
    # Readers of single formats are imported on use: each import takes half a second.
    extras.require("pyarrow", purpose="datasets in parquet files")
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).column("data").to_pylist()


def _array_record(path: str) -> list[bytes]:
    from array_record.python import array_record_module

    reader = array_record_module.ArrayRecordReader(path)
    try:
        return reader.read_all()
    finally:
        reader.close()


def spans(content: Any) -> Iterator[tuple[int, int]]:
    """Yields the position and the length of each record of a tfrecord file.

    A record consists of the length of its data (8 bytes), a checksum of the length (4
    bytes), the data, and a checksum of the data (4 bytes). The checksums are not
    verified, since CRC32C in Python would take longer than decoding. Instead, errors
    are detected by the framing, the number of records, and the checksums in the images
    themselves.

    Args:
      content: content of the file: bytes, or a memory map or memory view of them.

    Yields:
      Offset of a record's data in the file, and the length of the data, in bytes.

    Raises:
      ValueError: if the file ends inside a record.
    """
    start = 0
    while start < len(content):
        if start + 12 > len(content):
            raise ValueError("the file ends inside a record's header")
        (length,) = struct.unpack_from("<Q", content, start)
        if start + length + 16 > len(content):
            raise ValueError("the file ends inside a record")
        yield start + 12, length
        start += length + 16


def _tfrecord(path: str) -> Iterator[bytes]:
    content = memoryview(Path(path).read_bytes())
    for start, length in spans(content):
        yield bytes(content[start : start + length])


RECORDS = {"parquet": _parquet, "array_record": _array_record, "tfrecord": _tfrecord}


def again(name: str, folder: Path) -> str:
    """Returns the remedy for damaged files, for messages.

    Args:
      name: TFDS name of the dataset.
      folder: folder of its version.
    """
    return f"delete {folder} and prepare {name} again (experiments/prepare_data.py)"


def _own_features() -> set[str]:
    """Returns the qualified names of the feature classes that are part of TFDS."""
    members = vars(tfds.features).values()
    kinds = (kind for kind in members if isinstance(kind, type))
    return {
        f"{kind.__module__}.{kind.__name__}"
        for kind in kinds
        if issubclass(kind, tfds.features.FeatureConnector)
    }


def _classes_in(content: Any) -> Iterator[str]:
    """Yields the classes that TFDS would import to read a description of features.

    TFDS imports the module of every class that the description names, which runs the
    module's code. A description may contain descriptions in older formats as strings of
    JSON.
    """
    if isinstance(content, str) and content.lstrip().startswith(("{", "[")):
        with contextlib.suppress(ValueError):
            yield from _classes_in(json.loads(content))
    elif isinstance(content, list):
        for part in content:
            yield from _classes_in(part)
    elif isinstance(content, dict):
        for key, part in content.items():
            is_old_format = key == "type" and "content" in content
            if is_old_format or key in ("pythonClassName", "python_class_name"):
                yield str(part)
            else:
                yield from _classes_in(part)


def _check_classes(folder: Path) -> None:
    """Checks that all features are part of TFDS, before TFDS imports their modules."""
    text = (folder / "features.json").read_text(encoding="utf-8")
    unknown_classes = sorted(set(_classes_in(json.loads(text))) - _own_features())
    if unknown_classes:
        raise ValueError(
            "features.json: expected only classes of TFDS itself, "
            f"tensorflow_datasets.core.features, got {unknown_classes}"
        )


def _read_info(name: str, folder: Path) -> tfds.core.DatasetInfo:
    try:
        _check_classes(folder)
        return tfds.builder_from_directory(folder).info
    except Exception as error:  # TFDS raises what its many parsers happen to raise
        if metrics_log.is_of_machine(error):
            raise
        raise ValueError(
            f"{name}: expected the dataset_info.json and features.json that TFDS wrote "
            f"in {folder}, got a description that cannot be read ({error}); "
            f"{again(name, folder)}"
        ) from error


def _check_features(
    name: str, info: tfds.core.DatasetInfo, *, of_all_sizes: bool
) -> None:
    features = dict(info.features)
    image, label = features.get("image"), features.get("label")
    if (
        not isinstance(image, tfds.features.Image)
        or not isinstance(label, tfds.features.ClassLabel)
        or image.np_dtype != np.uint8
        or (None in image.shape and not of_all_sizes)
        or image.shape[-1] not in decoding.MODES
    ):
        one_size = "" if of_all_sizes else " and one fixed size"
        resize_hint = ", or resize images of all sizes to one (config.data.image_size)"
        hint = "" if of_all_sizes else resize_hint
        raise ValueError(
            f"{name}: expected the features `image` of uint8{one_size} with 1, 3 or 4 "
            f"channels, and `label`, got {features}; choose another dataset or add a "
            f"reader with `jaxsparse.register_dataset`{hint}"
        )


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
            f"than fit into memory; {again(name, Path(described.filepaths[0]).parent)}"
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
                f"file ({error}); {again(name, path.parent)}"
            ) from error
    return examples


def describe(
    name: str, *, data_dir: str | None, of_all_sizes: bool = False
) -> tuple[tfds.core.DatasetInfo, str]:
    """Reads and checks the description of a prepared dataset.

    Args:
      name: TFDS name, optionally with a config or a version: "cifar10",
        "emnist/letters", "cifar10:3.0.2". Without a version, the latest one is taken.
      data_dir: folder that holds the datasets; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.
      of_all_sizes: whether images may differ in size.

    Returns:
      The description by TFDS, and the name of the split to test on: "test", or
      "validation" if there is no test split.

    Raises:
      DatasetNotPrepared: if it is not in the folder; nothing is ever downloaded.
      ValueError: if the description is damaged, or the dataset is not one of image
        classification in a supported file format.
    """
    folder = find(name, data_dir=data_dir)
    info = _read_info(name, folder)
    if info.file_format.value not in RECORDS:
        raise ValueError(
            f"{name}: expected files in one of the formats {', '.join(RECORDS)} in "
            f"{folder}, got {info.file_format.value}; {again(name, folder)}"
        )
    splits = list(info.splits)
    test = "test" if "test" in splits else "validation"
    if "train" not in splits or test not in splits:
        raise ValueError(
            f"{name}: expected the splits train, and test or validation, in {folder}, "
            f"got {splits}; choose another dataset, or add a reader with "
            "`jaxsparse.register_dataset`"
        )
    _check_features(name, info, of_all_sizes=of_all_sizes)
    for split in ("train", test):
        lengths = info.splits[split].shard_lengths
        if not lengths or min(lengths) < 0 or not 0 < sum(lengths) < MAX_EXAMPLES:
            raise ValueError(
                f"{name}: expected 1 to {MAX_EXAMPLES:.0e} examples in {split} by the "
                f"dataset_info.json in {folder}, got {sum(lengths)}, in files of "
                f"{lengths[:5]}; {again(name, folder)}"
            )
    return info, test


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
    info, test = describe(name, data_dir=data_dir)
    classes = info.features["label"].num_classes
    return _read_split(name, info, "train"), _read_split(name, info, test), classes
