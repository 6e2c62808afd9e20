"""The handwritten digits included in scikit-learn, which need no download.

1797 images of 8 by 8 pixels in 17 gray levels, from the test part of the UCI dataset.
They are small enough that a whole lottery-ticket study runs on a laptop in minutes.

References:
  Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", 1998, UCI Machine
    Learning Repository.
"""

import numpy as np

from jaxsparse import extras
from jaxsparse.data import dataset
from jaxsparse.data.dataset import Examples

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
    # Imported on use, because the import takes a second.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    shades = np.rint(bunch.images * 255 / 16).astype(np.uint8)
    every = Examples(shades[..., np.newaxis], bunch.target.astype(np.int32))
    train, test = dataset.split(every, validation=TEST_EXAMPLES, seed=DIVISION_SEED)
    return train, test, CLASSES
