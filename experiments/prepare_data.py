"""Downloads a dataset and prepares it, so that experiments can read it.

  pip install -e '.[prepare]'
  python experiments/prepare_data.py --dataset=cifar10 [--data_dir=FOLDER]

This is the only program that touches the network and the only one that needs
TensorFlow, because TFDS prepares datasets with it. It may run on another machine:
copy the folder and name it by `--config.data.dir`. A dataset that is there already is
left as it is.
"""

import importlib.util

import tensorflow_datasets as tfds
from absl import app, flags, logging

from jaxsparse.data import sources

_DATASET = flags.DEFINE_string(
    "dataset", None, "TFDS name, such as mnist, cifar10 or cifar100.", required=True
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where to; default TFDS_DATA_DIR, else ~/tensorflow_datasets."
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


def prepare(name: str, *, data_dir: str, file_format: str) -> None:
    """Downloads and prepares, with one readable error if that fails.

    Args:
      name: TFDS name, with a config or version if wanted.
      data_dir: absolute folder to put the dataset into.
      file_format: a key of `sources.RECORDS`.
    """
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format=file_format)
        builder.download_and_prepare()
    except Exception as error:  # a network, a disk, a checksum: TFDS raises them all
        logging.debug("the whole error", exc_info=True)
        lines = str(error).strip().splitlines()
        raise SystemExit(
            f"prepare_data: {name} could not be prepared in {data_dir}: "
            f"{type(error).__name__}: {lines[0] if lines else 'no message'}\n"
            "Are the name, the network and the disk all right? A folder prepared on "
            "another machine can be copied here. --verbosity=1 shows the whole error."
        ) from None


def main(argv: list[str]) -> None:
    """Prepares the dataset that the flags name, unless it is there."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; wanted flags only")
    name, root = _DATASET.value, str(sources.root_folder(_DATA_DIR.value))
    if name == "digits":
        print("digits come embedded in scikit-learn: there is nothing to prepare")
        return
    try:
        folder = sources.find(name, data_dir=root)
        print(f"{name} is prepared already in {folder}")
    except sources.DatasetNotPrepared:
        check_installed()
        print(f"downloading and preparing {name} in {root} ...", flush=True)
        prepare(name, data_dir=root, file_format=_FORMAT.value)
        folder = sources.find(name, data_dir=root)
        print(f"{name} is now in {folder}")
    print(f"use it: --config.data.name={name} --config.data.dir={root}")


if __name__ == "__main__":
    app.run(main)
