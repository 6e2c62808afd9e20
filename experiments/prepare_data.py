"""Downloads a dataset and prepares it for the experiments.

    pip install -e '.[prepare]'
    python experiments/prepare_data.py --dataset=cifar10 --data_dir=DIR

Only this script downloads data and needs TensorFlow, by which TFDS prepares datasets.
It may run on another machine: copy DIR and give it as `--data_dir` of the other
scripts. A dataset that exists is not changed, whether TFDS prepared it or it consists
of folders of images (`jaxsparse.data.folders`). TFDS does not have CINIC-10 and Tiny
ImageNet; for these the script prints where to download them. imagenet2012 needs
ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar in `--manual_dir`.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tensorflow_datasets as tfds  # noqa: E402
from absl import flags, logging  # noqa: E402

from experiments import command_line  # noqa: E402
from jaxsparse.data import (  # noqa: E402
    folders,
    names,
    tfds_folders,
    tfds_records,
    tiny_imagenet,
)

_DATASET = flags.DEFINE_string(
    "dataset", None, "TFDS name, such as mnist, cifar10 or cifar100"
)
_DATA_DIR = command_line.data_dir()
_MANUAL_DIR = flags.DEFINE_string(
    "manual_dir",
    None,
    "folder of files that TFDS cannot download; default: DATA_DIR/downloads/manual",
)
_FORMAT = flags.DEFINE_enum(
    "format", "array_record", list(tfds_records.RECORDS), "file format of the examples"
)


def check_installed() -> None:
    """Exits if a package that TFDS prepares datasets with is not installed."""
    # TFDS 4.9.10 imports importlib_resources but does not require it.
    needed = ("tensorflow", "importlib_resources")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"error: {' and '.join(missing)} not installed, which TFDS needs to "
            "prepare datasets; pip install -e '.[prepare]'"
        )


def prepare(
    name: str, *, data_dir: str, file_format: str, manual_dir: Path | None = None
) -> None:
    """Downloads and prepares a dataset; exits with a short message if that fails.

    Args:
      name: TFDS name, optionally with a config or version.
      data_dir: absolute path of the folder of datasets.
      file_format: a key of `tfds_records.RECORDS`.
      manual_dir: folder of files that TFDS cannot download; None for its default.
    """
    options = {}
    if manual_dir is not None:
        download = tfds.download.DownloadConfig(manual_dir=manual_dir)
        options["download_config"] = download
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format=file_format)
        builder.download_and_prepare(**options)
    except Exception as error:  # of the network, the disk or a checksum
        logging.debug("the whole error", exc_info=True)
        lines = str(error).strip().splitlines()
        raise SystemExit(
            f"error: {name} cannot be prepared in {data_dir}: "
            f"{type(error).__name__}: {lines[0] if lines else 'no message'}\n"
            "Check the name, the network and the disk, or copy a folder that was "
            "prepared on another machine. --verbosity=1 shows the whole error."
        ) from None


def check_unpacked(name: str, *, data_dir: str) -> None:
    """Prints that a dataset exists; exits with instructions if it does not.

    Args:
      name: a key of `folders.ORIGINS`, the datasets that TFDS does not have.
      data_dir: absolute path of the folder of datasets.
    """
    try:
        if name == tiny_imagenet.NAME:
            tiny_imagenet.find(data_dir=data_dir)
        else:
            folders.find(name, data_dir=data_dir, with_validation=True)
    except ValueError as error:
        raise SystemExit(
            f"error: TFDS does not have {name}; unpack it by hand\n{error}"
        ) from None
    print(f"{name} is already unpacked in {data_dir}")


def obtain(
    name: str, *, data_dir: str, file_format: str, manual_dir: Path | None = None
) -> None:
    """Prepares a dataset, unless it exists in one of the two forms.

    Args:
      name: TFDS name, optionally with a config or version.
      data_dir: absolute path of the folder of datasets.
      file_format: a key of `tfds_records.RECORDS`.
      manual_dir: folder of files that TFDS cannot download; None for its default.
    """
    try:
        folder = tfds_folders.find(name, data_dir=data_dir)
        print(f"{name} is already prepared in {folder}")
    except tfds_folders.DatasetNotPrepared:
        if folders.is_there(name, data_dir=data_dir):
            print(f"{name} already exists as folders of images in {data_dir}")
            return
        check_installed()
        print(f"downloading and preparing {name} in {data_dir} ...", flush=True)
        prepare(name, data_dir=data_dir, file_format=file_format, manual_dir=manual_dir)
        folder = tfds_folders.find(name, data_dir=data_dir)
        print(f"{name} is now in {folder}")


def main(argv: list[str]) -> None:
    """Prepares the dataset of the flags, unless it exists.

    Args:
      argv: the command line, of which absl has parsed the flags.
    """
    del argv
    name = _DATASET.value
    if not name:
        command_line.fail("--dataset: missing; give a TFDS name, as --dataset=cifar10")
    try:
        root = str(names.root_folder(_DATA_DIR.value))
        manual_dir = command_line.path(_MANUAL_DIR)
    except ValueError as error:
        command_line.fail(str(error))
    if name == "digits":
        print("digits are part of scikit-learn; there is nothing to prepare")
        return
    if name.partition(":")[0] in folders.ORIGINS:
        check_unpacked(name.partition(":")[0], data_dir=root)
    else:
        obtain(
            name,
            data_dir=root,
            file_format=_FORMAT.value,
            manual_dir=manual_dir,
        )
    print(f"use it by --config.data.name={name} --data_dir={root}")


if __name__ == "__main__":
    command_line.run(main)
