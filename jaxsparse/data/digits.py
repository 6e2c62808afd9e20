"""The handwritten digits included in scikit-learn, which need no download.

1797 images of 8 by 8 pixels in 17 gray levels, from the test part of the UCI dataset.
They are small enough that a whole lottery-ticket study runs on a laptop in minutes.

References:
  Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", 1998, UCI Machine
    Learning Repository.
"""

import importlib.util
from pathlib import Path

import numpy as np

from jaxsparse import extras
from jaxsparse.data import dataset
from jaxsparse.data.dataset import Examples

FILE = "datasets/data/digits.csv.gz"  # in sklearn; 64 gray levels and a label a row
CLASSES = 10
TEST_EXAMPLES = 360  # of 1797, which leaves 1437 for training
DIVISION_SEED = 0  # never change it: another value is another dataset


def read(*, data_dir: str | None = None) -> tuple[Examples, Examples, int]:
    """Reads the digits and splits them into a training and a test set.

    scikit-learn has no test set for them. `dataset.split` draws 360 test examples
    uniformly, not stratified, with the fixed seed 0.

    Args:
      data_dir: unused; all readers have the same signature.

    Returns:
      1437 training examples, 360 test examples, and the number of classes, 10. A gray
      level v in [0, 16] becomes the pixel round(255 v / 16).
    """
    del data_dir
    extras.require("sklearn", purpose="the digits dataset")
    # The file that `sklearn.datasets.load_digits` reads. sklearn itself is not
    # imported, which would take a second.
    [package] = importlib.util.find_spec("sklearn").submodule_search_locations
    table = np.loadtxt(Path(package) / FILE, delimiter=",")
    shades = np.rint(table[:, :-1] * 255 / 16).astype(np.uint8)
    every = Examples(shades.reshape(-1, 8, 8, 1), table[:, -1].astype(np.int32))
    train, test = dataset.split(every, validation=TEST_EXAMPLES, seed=DIVISION_SEED)
    return train, test, CLASSES
