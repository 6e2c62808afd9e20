"""Finds the folders of datasets prepared by TFDS."""

import re
import shlex
from pathlib import Path

from jaxsparse.data import names

# Files that must be downloaded by hand before TFDS can prepare a dataset.
BY_HAND = {"imagenet2012": ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar")}

_NAME = re.compile(r"(?P<folder>[a-z0-9_]+(/[\w.+-]+)?)(:(?P<version>\d+\.\d+\.\d+))?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")  # not "3.0.2.incompleteXYZ"


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
        f"config.data.name: expected the dataset {name!r}, prepared by TFDS, in "
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


def again(name: str, folder: Path) -> str:
    """Returns the remedy for damaged files, for messages.

    Args:
      name: TFDS name of the dataset.
      folder: folder of its version.
    """
    return f"delete {folder} and prepare {name} again (experiments/prepare_data.py)"
