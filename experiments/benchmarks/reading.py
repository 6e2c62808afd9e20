"""Reading datasets into memory, without and with the cache of decoded images."""

import os
import tempfile
import time
from collections.abc import Mapping
from unittest import mock

from experiments.benchmarks import timing
from experiments.benchmarks.timing import Table
from jaxsparse.data import cache_dir, datasets

TITLE = "Reading datasets"
NO_DATA = "not measured: no folder of datasets; give --data_dir=DIR"


def measure(
    *,
    seconds: float,
    data_dir: str | None = None,
    repetitions: int = 3,
    names: tuple[str, ...] = ("mnist", "cifar10"),
) -> list[Table]:
    """Times reading with an empty cache, which decodes the images, and with a full one.

    Args:
      seconds: not used: reading takes as long as it takes.
      data_dir: folder of prepared datasets; None measures nothing.
      repetitions: pairs of an empty and a full cache.
      names: names of the datasets.
    """
    del seconds
    if data_dir is None:
        return [timing.absent_table(TITLE, NO_DATA)]
    times: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for name in names:
        cold, cached = [], []
        for _ in range(repetitions):
            with (
                tempfile.TemporaryDirectory() as folder,
                mock.patch.dict(os.environ, {cache_dir.VARIABLE: folder}),
            ):
                cold.append(read(name, data_dir))
                cached.append(read(name, data_dir))
        times[name] = {"empty cache": cold, "full cache": cached}
    return [_table(times)]


def read(name: str, data_dir: str) -> float:
    """Reads a dataset and every one of its pixels, and returns the seconds it takes.

    Args:
      name: name of the dataset.
      data_dir: directory of prepared datasets.
    """
    start = time.perf_counter()
    dataset = datasets.load(name, data_dir=data_dir)
    for part in (dataset.train, dataset.test):
        part.images.max()  # the cache is mapped to memory, and read on access
    return time.perf_counter() - start


def _table(times: Mapping[str, Mapping[str, list[float]]]) -> Table:
    rows = [
        (name, *(timing.format_spread(values, 2) for values in found.values()))
        for name, found in times.items()
    ]
    header = ("", "empty cache, s", "full cache, s")
    note = (
        "Training and test images, every pixel. With an empty cache the images are "
        "decoded by all cores and saved. The files are in the system's memory."
    )
    return Table(TITLE, header, rows, note, {"seconds": times})
