"""Downloads a dataset and prepares it, so that experiments can read it.

  pip install -e '.[prepare]'
  python experiments/prepare_data.py --dataset=cifar10 [--data_dir=FOLDER]

This is the only program that touches the network and the only one that needs
TensorFlow, because TFDS prepares datasets with it. It may run on another machine:
copy the folder and name it by `--config.data.dir`. A dataset that is there already is
left as it is, be it TFDS's or folders of images (`jaxsparse.data.folders`). CINIC-10
and Tiny ImageNet come only as such folders, not from TFDS: of them this says where to
get them. Of imagenet2012 TFDS wants ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar
in the folder `--manual_dir`.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tensorflow_datasets as tfds  # noqa: E402
from absl import flags, logging  # noqa: E402

from experiments import command_line  # noqa: E402
from jaxsparse.data import folders, names, sources, tiny_imagenet  # noqa: E402

_DATASET = flags.DEFINE_string(
    "dataset", None, "TFDS name, such as mnist, cifar10 or cifar100."
)
_DATA_DIR = command_line.data_dir()
_MANUAL_DIR = flags.DEFINE_string(
    "manual_dir", None, "Files had by hand; default DATA_DIR/downloads/manual."
)
_FORMAT = flags.DEFINE_enum(
    "format", "array_record", list(sources.RECORDS), "How to store the examples."
)


def check_installed() -> None:
    """Stops unless everything that preparing needs is installed."""
    # TFDS 4.9.10 imports importlib_resources without asking for it.
    needed = ("tensorflow", "importlib_resources")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"prepare_data: {' and '.join(missing)} not installed; preparing needs "
            "TensorFlow (reading does not): pip install -e '.[prepare]'"
        )


def prepare(
    name: str, *, data_dir: str, file_format: str, manual_dir: Path | None = None
) -> None:
    """Downloads and prepares, with one readable error if that fails.

    Args:
      name: TFDS name, with a config or version if wanted.
      data_dir: absolute folder to put the dataset into.
      file_format: a key of `sources.RECORDS`.
      manual_dir: folder of what TFDS does not download; None for its default.
    """
    options = {}
    if manual_dir is not None:
        download = tfds.download.DownloadConfig(manual_dir=manual_dir)
        options["download_config"] = download
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format=file_format)
        builder.download_and_prepare(**options)
    except Exception as error:  # a network, a disk, a checksum: TFDS raises them all
        logging.debug("the whole error", exc_info=True)
        lines = str(error).strip().splitlines()
        raise SystemExit(
            f"prepare_data: {name} could not be prepared in {data_dir}: "
            f"{type(error).__name__}: {lines[0] if lines else 'no message'}\n"
            "Are the name, the network and the disk all right? A folder prepared on "
            "another machine can be copied here. --verbosity=1 shows the whole error."
        ) from None


def check_unpacked(name: str, *, data_dir: str) -> None:
    """Says that a dataset which TFDS does not have is there, or how to get it.

    Args:
      name: a key of `folders.ORIGINS`.
      data_dir: absolute folder to look in.
    """
    try:
        if name == tiny_imagenet.NAME:
            tiny_imagenet.find(data_dir=data_dir)
        else:
            folders.find(name, data_dir=data_dir, with_validation=True)
    except ValueError as error:
        raise SystemExit(
            f"prepare_data: TFDS does not have {name}, so it cannot be prepared, only "
            f"unpacked by hand\n{error}"
        ) from None
    print(f"{name} is unpacked already in {data_dir}")


def obtain(
    name: str, *, data_dir: str, file_format: str, manual_dir: Path | None = None
) -> None:
    """Prepares a dataset, unless it is there in one way or the other.

    Args:
      name: as for `prepare`.
      data_dir: as for `prepare`.
      file_format: as for `prepare`.
      manual_dir: as for `prepare`.
    """
    try:
        folder = sources.find(name, data_dir=data_dir)
        print(f"{name} is prepared already in {folder}")
    except sources.DatasetNotPrepared:
        if folders.is_there(name, data_dir=data_dir):
            print(f"{name} is there already as folders of images in {data_dir}")
            return
        check_installed()
        print(f"downloading and preparing {name} in {data_dir} ...", flush=True)
        prepare(name, data_dir=data_dir, file_format=file_format, manual_dir=manual_dir)
        folder = sources.find(name, data_dir=data_dir)
        print(f"{name} is now in {folder}")


def main(argv: list[str]) -> None:
    """Prepares the dataset that the flags name, unless it is there."""
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
        print("digits come embedded in scikit-learn: there is nothing to prepare")
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
    print(f"use it: --config.data.name={name} --config.data.dir={root}")


if __name__ == "__main__":
    command_line.run(main)
