"""Names of datasets and the folder they are in, checked before slow imports."""

import difflib
import os
from pathlib import Path

from jaxsparse.config import naming, registries

# What TFDS calls ImageNet, and what a tree of its images may be called.
IMAGENET = ("imagenet2012", "imagenet")

# Names to offer when one is misspelt, beside those that are registered; any other that
# is prepared works as well.
KNOWN = ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn_cropped", *IMAGENET)


def root_folder(data_dir: str | None) -> Path:
    """Returns the absolute folder in which datasets are looked for.

    Args:
      data_dir: a folder, "~" allowed; None means the environment variable
        TFDS_DATA_DIR, or else the default of TFDS, ~/tensorflow_datasets.
    """
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return naming.to_path("data_dir", chosen).absolute()


def doubt(name: str, *, data_dir: str | None) -> str:
    """Words that a name is unknown, in one line; "" for one that may be right.

    A name may be right if it is known or registered, if it is like none of those, or if
    there is a folder of that name.

    Args:
      name: of a dataset, as for `datasets.load`.
      data_dir: as for `root_folder`.
    """
    folder, root = name.partition(":")[0], root_folder(data_dir)
    known = (*KNOWN, *registries.DATASETS)
    if folder.partition("/")[0] in known or (root / folder).exists():
        return ""
    near = difflib.get_close_matches(folder.lower(), known, n=2, cutoff=0.6)
    if not near:
        return ""
    return (
        f"config.data.name: unknown {name!r}; did you mean {' or '.join(near)}? Any "
        f"other must be prepared in {root}, as experiments/prepare_data.py does"
    )


def check(name: str, *, data_dir: str | None) -> None:
    """Refuses a name that `doubt` doubts; reads no file.

    Args:
      name: as for `doubt`.
      data_dir: as for `root_folder`.

    Raises:
      ValueError: naming the nearest names.
    """
    if doubted := doubt(name, data_dir=data_dir):
        raise ValueError(doubted)
