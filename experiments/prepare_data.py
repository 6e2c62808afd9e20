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
from pathlib import Path

import tensorflow_datasets as tfds
from absl import app, flags, logging

from jaxsparse.data import folders, sources, tiny_imagenet

_DATASET = flags.DEFINE_string(
    "dataset", None, "TFDS name, such as mnist, cifar10 or cifar100.", required=True
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where to; default TFDS_DATA_DIR, else ~/tensorflow_datasets."
)
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
    name: str, *, data_dir: str, file_format: str, manual_dir: str | None = None
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
        folder = Path(manual_dir).expanduser().absolute()
        options["download_config"] = tfds.download.DownloadConfig(manual_dir=folder)
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
    name: str, *, data_dir: str, file_format: str, manual_dir: str | None = None
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
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; wanted flags only")
    name, root = _DATASET.value, str(sources.root_folder(_DATA_DIR.value))
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
            manual_dir=_MANUAL_DIR.value,
        )
    print(f"use it: --config.data.name={name} --config.data.dir={root}")


if __name__ == "__main__":
    app.run(main)
