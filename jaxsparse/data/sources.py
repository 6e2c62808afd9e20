"""Prepared TFDS folders, read into arrays without TensorFlow.

TFDS writes the same serialised examples into each of its file formats; only the
framing differs, so this module reads records from parquet, array_record or tfrecord
files and decodes them all alike. It reads and never downloads: looking for a dataset
touches the disk and no network. `experiments/prepare_data.py` downloads.
"""

import contextlib
import io
import json
import os
import re
import shlex
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from jaxsparse import metrics_log
from jaxsparse.config import naming
from jaxsparse.data.dataset import Examples

# Names to offer when one is misspelt; any other that is prepared works as well.
KNOWN = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn_cropped", "cinic10")
KNOWN += ("tiny_imagenet", "digits")

# What must be had by hand before TFDS can prepare a dataset.
BY_HAND = {"imagenet2012": ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")}

_NAME = re.compile(r"(?P<folder>[a-z0-9_]+(/[\w.+-]+)?)(:(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")  # not "3.0.2.incompleteXYZ"
MOST_EXAMPLES = 10**12  # of a split; more is a damaged description
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's names by channels


class DatasetNotPrepared(ValueError):
    """There is no such dataset in the folder; the message says how to get it."""


def root_folder(data_dir: str | None) -> Path:
    """Returns the absolute folder in which datasets are looked for.

    Args:
      data_dir: a folder, "~" allowed; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.
    """
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return naming.to_path("data_dir", chosen).absolute()


def find(name: str, *, data_dir: str | None) -> Path:
    """Finds a prepared dataset, in milliseconds and without any network.

    Args:
      name: TFDS name, with a config or a version if wanted: "cifar10",
        "emnist/letters", "cifar10:3.0.2". Without a version the latest is taken.
      data_dir: as for `root_folder`.

    Returns:
      The folder of one version, which holds dataset_info.json.

    Raises:
      DatasetNotPrepared: if there is none; the message lists the ways out.
    """
    root = root_folder(data_dir)
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise DatasetNotPrepared(_explain(name, root))
    found = [
        path.parent
        for path in (root / parts["folder"]).glob("*/dataset_info.json")
        if _VERSION.fullmatch(path.parent.name)
        and parts["version"] in (None, path.parent.name)
    ]
    if not found:
        raise DatasetNotPrepared(_explain(name, root))
    return max(found, key=lambda path: [int(x) for x in path.name.split(".")])


def _explain(name: str, root: Path) -> str:
    known = name.partition(":")[0] in KNOWN
    doubt = "" if known else f" Is the name right? Known are {', '.join(KNOWN)}."
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
        f"data.name: the dataset {name!r} is not prepared in {root}; wanted a folder "
        f"{root / name.partition(':')[0]}/VERSION that TFDS has written.{doubt}\n"
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
    # Readers of single formats are imported where needed: half a second each.
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
    """Yields where each record of a file of tfrecord begins, and how long it is.

    A record is its length (8 bytes), a checksum of that (4), the bytes, and a checksum
    of those (4). CRC32C in Python would take longer than decoding; the framing, the
    number of records and the images' own checksums are verified.

    Args:
      content: bytes of the file, also mapped to memory.

    Raises:
      ValueError: if the file ends where none should.
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
    """Words what to do with files that are of no use."""
    return f"delete {folder} and prepare {name} again (experiments/prepare_data.py)"


def _own_features() -> set[str]:
    """Lists the classes of features that are part of TFDS."""
    found = vars(tfds.features).values()
    kinds = (kind for kind in found if isinstance(kind, type))
    return {
        f"{kind.__module__}.{kind.__name__}"
        for kind in kinds
        if issubclass(kind, tfds.features.FeatureConnector)
    }


def _classes_in(content: Any) -> Iterator[str]:
    """Yields the classes that TFDS would import for a description of features.

    TFDS imports whatever module a name is in, which runs its code. A description may
    hold older ones as text.
    """
    if isinstance(content, str) and content.lstrip().startswith(("{", "[")):
        with contextlib.suppress(ValueError):
            yield from _classes_in(json.loads(content))
    elif isinstance(content, list):
        for part in content:
            yield from _classes_in(part)
    elif isinstance(content, dict):
        for key, part in content.items():
            old = key == "type" and "content" in content
            if old or key in ("pythonClassName", "python_class_name"):
                yield str(part)
            else:
                yield from _classes_in(part)


def _check_classes(folder: Path) -> None:
    """Refuses features that are no part of TFDS, before TFDS imports their modules."""
    text = (folder / "features.json").read_text(encoding="utf-8")
    strange = sorted(set(_classes_in(json.loads(text))) - _own_features())
    if strange:
        raise ValueError(
            f"features.json names the classes {strange}; only those of TFDS itself, "
            "tensorflow_datasets.core.features, are accepted"
        )


def _read_info(name: str, folder: Path) -> tfds.core.DatasetInfo:
    try:
        _check_classes(folder)
        return tfds.builder_from_directory(folder).info
    except Exception as error:  # TFDS raises what its many parsers happen to raise
        if metrics_log.is_of_machine(error):
            raise
        raise ValueError(
            f"{name}: the description in {folder} cannot be read ({error}); wanted "
            "the dataset_info.json and features.json that TFDS wrote; "
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
        or image.shape[-1] not in _MODES
    ):
        one_size = "" if of_all_sizes else " and one fixed size"
        or_cut = ", or have images of all sizes cut to one (config.data.size)"
        more = "" if of_all_sizes else or_cut
        raise ValueError(
            f"{name}: its features are {features}; wanted an `image` of uint8{one_size}"
            " with 1, 3 or 4 channels, and a `label`; choose another dataset or add a "
            f"reader with `jaxsparse.register_dataset`{more}"
        )


def _decode(
    record: bytes, shape: tuple[int, ...]
) -> tuple[UInt8[np.ndarray, "h w c"], int]:
    feature = tf_example_pb2.Example.FromString(record).features.feature
    # Pillow and not TFDS's decoder, which takes twice as long and would change with
    # OpenCV's presence. The content says whether it is PNG or JPEG.
    encoded = io.BytesIO(feature["image"].bytes_list.value[0])
    with Image.open(encoded, formats=("PNG", "JPEG")) as picture:
        mode = _MODES[shape[-1]]
        pixels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
    if pixels.shape[:2] != shape[:2]:
        raise ValueError(f"an image of {pixels.shape[:2]} pixels, not {shape[:2]}")
    return pixels.reshape(shape), feature["label"].int64_list.value[0]


def _read_shard(path: Path, info: tfds.core.DatasetInfo, into: Examples) -> None:
    """Fills `into`, which has as many rows as the file must have records."""
    found = list(RECORDS[info.file_format.value](str(path)))
    if len(found) != len(into.labels):
        raise ValueError(f"{len(found)} records, not {len(into.labels)}")
    classes = info.features["label"].num_classes
    for i, record in enumerate(found):
        into.images[i], into.labels[i] = _decode(record, info.features["image"].shape)
    if not ((into.labels >= 0) & (into.labels < classes)).all():
        raise ValueError(f"a label outside 0 to {classes - 1}")


def _read_split(name: str, info: tfds.core.DatasetInfo, split: str) -> Examples:
    described = info.splits[split]
    shape = (described.num_examples, *info.features["image"].shape)
    try:
        whole = Examples(np.empty(shape, np.uint8), np.empty(shape[0], np.int32))
    except (MemoryError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{name}: its dataset_info.json counts {shape[0]} examples of {shape[1:]} "
            f"in {split}, for which there is no memory; expected as many as the files "
            f"hold; {again(name, Path(described.filepaths[0]).parent)}"
        ) from error
    start = 0
    for path, length in zip(
        map(Path, described.filepaths), described.shard_lengths, strict=True
    ):
        rows = slice(start, start + length)
        start += length
        try:
            _read_shard(path, info, Examples(whole.images[rows], whole.labels[rows]))
        except Exception as error:  # four libraries' kinds of "damaged"
            if metrics_log.is_of_machine(error):
                raise
            raise ValueError(
                f"{name}: {path} is damaged or missing: {error}; wanted {length} "
                f"examples; {again(name, path.parent)}"
            ) from error
    return whole


def describe(
    name: str, *, data_dir: str | None, of_all_sizes: bool = False
) -> tuple[tfds.core.DatasetInfo, str]:
    """Reads what a prepared dataset says of itself, and refuses what it cannot be.

    Args:
      name: TFDS name, as for `find`.
      data_dir: as for `root_folder`.
      of_all_sizes: whether images may differ in size.

    Returns:
      TFDS's description, and the split to test on.

    Raises:
      DatasetNotPrepared: if it is not in the folder; nothing is ever downloaded.
      ValueError: if it is no image classification with files of a known kind.
    """
    folder = find(name, data_dir=data_dir)
    info = _read_info(name, folder)
    if info.file_format.value not in RECORDS:
        raise ValueError(
            f"{name}: the files in {folder} are {info.file_format.value}; wanted one "
            f"of {', '.join(RECORDS)}; {again(name, folder)}"
        )
    splits = list(info.splits)
    test = "test" if "test" in splits else "validation"
    if "train" not in splits or test not in splits:
        raise ValueError(
            f"{name}: {folder} has the splits {splits}; wanted train, and test or "
            "validation; choose another dataset, or add a reader with "
            "`jaxsparse.register_dataset`"
        )
    _check_features(name, info, of_all_sizes=of_all_sizes)
    for split in ("train", test):
        lengths = info.splits[split].shard_lengths
        if not lengths or min(lengths) < 0 or not 0 < sum(lengths) < MOST_EXAMPLES:
            raise ValueError(
                f"{name}: the dataset_info.json in {folder} counts {sum(lengths)} "
                f"examples in {split}, in files of {lengths[:5]}; expected 1 to "
                f"{MOST_EXAMPLES:.0e}; {again(name, folder)}"
            )
    return info, test


def read(name: str, *, data_dir: str | None) -> tuple[Examples, Examples, int]:
    """Reads a prepared TFDS image classification dataset whole.

    Args:
      name: TFDS name, as for `find`.
      data_dir: as for `root_folder`.

    Returns:
      Training examples, test examples and the number of classes. Examples are in the
      order of the folder. A dataset without a test split (such as imagenette) gives
      its validation split as the test set.

    Raises:
      DatasetNotPrepared: if it is not in the folder; nothing is ever downloaded.
      ValueError: if it is no image classification with images of one size, or if a
        file is damaged.
    """
    info, test = describe(name, data_dir=data_dir)
    classes = info.features["label"].num_classes
    return _read_split(name, info, "train"), _read_split(name, info, test), classes
