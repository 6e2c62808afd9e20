"""Records the fingerprint of a run's examples, and compares it with that of others."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxsparse import config as config_lib
from jaxsparse import metrics_log
from jaxsparse.data import datasets, fingerprint
from jaxsparse.data.dataset import Dataset

FILE = "data.json"


def describe(dataset: Dataset, config: ConfigDict) -> dict[str, Any]:
    """Returns the fingerprint of the examples and of the files they were read from.

    Args:
      dataset: the dataset.
      config: a validated config.
    """
    c = config.data
    # The contents of images that stay in files are not read. Which files a user's own
    # reader opens is unknown here.
    own = c.name in config_lib.DATASETS and c.name not in datasets.READERS
    known = not c.image_size and not own
    files = fingerprint.of_files(c.name, data_dir=c.dir or None) if known else None
    return fingerprint.of(dataset) | {"files": files}


def write(workdir: Path, data: fingerprint.Fingerprint) -> None:
    """Writes a fingerprint to a run directory.

    Args:
      workdir: the run directory.
      data: the result of `describe`.
    """
    text = json.dumps(data, indent=1) + "\n"
    metrics_log.write_atomically(workdir / FILE, text)


def check(workdir: Path, data: fingerprint.Fingerprint | None) -> None:
    """Checks that the examples are those that a run started with.

    Args:
      workdir: the run directory.
      data: fingerprint of the examples; None compares none.

    Raises:
      ValueError: if they differ; the message says how.
    """
    if data is None:
        return
    found = differences(workdir, data)
    if found:
        raise ValueError(
            f"config.data: expected the examples with which {workdir} began, got "
            f"others: {'; '.join(found)}; restore them, or choose another --workdir"
        )


def differences(workdir: Path, data: fingerprint.Fingerprint) -> list[str]:
    """Describes how examples differ from those of a run.

    Args:
      workdir: the run directory.
      data: fingerprint of the examples, from `fingerprint.of`.

    Returns:
      One description per difference; [] if there is none, or if the run did not record
      a fingerprint.

    Raises:
      ValueError: if the recorded fingerprint is corrupt.
    """
    path = workdir / FILE
    if not path.exists():  # older versions did not record it
        return []
    try:
        return fingerprint.differences(metrics_log.read_object(path), data)
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}; restore it, or remove it to go on without a comparison"
        ) from error


def recorded_sizes(workdir: Path) -> fingerprint.Sizes | None:
    """Reads the sizes of the data that a run started with.

    Args:
      workdir: the run directory.

    Returns:
      The sizes; None if the run did not record a fingerprint.

    Raises:
      ValueError: if the recorded fingerprint is corrupt.
    """
    path = workdir / FILE
    if not path.exists():
        return None
    try:
        return fingerprint.sizes(metrics_log.read_object(path))
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}; restore it, or give the run's command again without it"
        ) from error
