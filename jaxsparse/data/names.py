"""Names of datasets and the folder they are in, checked before slow imports."""

import difflib
import os
from pathlib import Path

from jaxsparse.config import naming, registries

# What TFDS calls ImageNet, and what a tree of its images may be called.
IMAGENET = ("imagenet2012", "imagenet")

# Names to offer when one is misspelled, beside those that are registered; any other
# that is prepared works as well.
KNOWN = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn_cropped", *IMAGENET)


def root_folder(data_dir: str | None) -> Path:
    """Returns the absolute folder in which datasets are looked for.

    Args:
      data_dir: a folder, "~" allowed; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.
    """
    folder_name = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return naming.to_path("data_dir", folder_name).absolute()


def doubt(name: str, *, data_dir: str | None) -> str:
    """Returns the message for a probably misspelled name; "" if it may be right.

    A name may be right if it is known or registered, if it is similar to none of those,
    or if there is a folder of that name.

    Args:
      name: name of a dataset, as for `datasets.load`.
      data_dir: folder that holds the datasets, "~" allowed; None means the environment
        variable TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.
    """
    folder, root = name.partition(":")[0], root_folder(data_dir)
    known = (*KNOWN, *registries.DATASETS)
    if folder.partition("/")[0] in known or (root / folder).exists():
        return ""
    similar = difflib.get_close_matches(folder.lower(), known, n=2, cutoff=0.6)
    if not similar:
        return ""
    return (
        f"config.data.name: expected a known dataset or one in {root}, got {name!r}; "
        f"did you mean {' or '.join(similar)}? Prepare any other with "
        "experiments/prepare_data.py"
    )


def check(name: str, *, data_dir: str | None) -> None:
    """Checks that a name is not probably misspelled; reads no file.

    Args:
      name: name of a dataset, as for `datasets.load`.
      data_dir: folder that holds the datasets, "~" allowed; None means the environment
        variable TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.

    Raises:
      ValueError: if it probably is; the message has the nearest known names.
    """
    if misspelled := doubt(name, data_dir=data_dir):
        raise ValueError(misspelled)
