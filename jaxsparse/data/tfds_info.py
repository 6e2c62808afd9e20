"""Reads and checks the descriptions of datasets prepared by TFDS."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxsparse import metrics_log
from jaxsparse.data import decoding, tfds_folders
from jaxsparse.data.tfds_records import RECORDS

MAX_EXAMPLES = 10**12  # per split; a larger number means a damaged description


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
            f"{tfds_folders.again(name, folder)}"
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
    folder = tfds_folders.find(name, data_dir=data_dir)
    info = _read_info(name, folder)
    if info.file_format.value not in RECORDS:
        raise ValueError(
            f"{name}: expected files in one of the formats {', '.join(RECORDS)} in "
            f"{folder}, got {info.file_format.value}; "
            f"{tfds_folders.again(name, folder)}"
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
                f"{lengths[:5]}; {tfds_folders.again(name, folder)}"
            )
    return info, test
