"""The handwritten digits that scikit-learn carries: data with no download.

1797 images of 8 by 8 pixels in 17 shades, from the test part of the UCI set. Small
enough that a whole lottery-ticket study runs on a laptop in minutes.

References:
  Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", 1998, UCI Machine
    Learning Repository.
"""

import numpy as np

from jaxsparse.data import dataset
from jaxsparse.data.dataset import Examples

CLASSES = 10
TEST_EXAMPLES = 360  # of 1797, which leaves 1437 to train on
DIVISION_SEED = 0  # fixed for ever: another value is another dataset


def read(*, data_dir: str | None = None) -> tuple[Examples, Examples, int]:
    """Reads the digits and divides them into a training and a test set.

    The source has no test set of its own, so 360 examples are drawn once, uniformly
    and not stratified, by `examples.split` with the fixed seed 0.

    Args:
      data_dir: not used; readers share one signature.

    Returns:
      1437 training examples, 360 test examples, and the 10 classes they belong to.
      A shade v of 0 to 16 becomes round(255 v / 16).
    """
    del data_dir
    # Here and not above: the import takes a second that other datasets need not wait.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    shades = np.rint(bunch.images * 255 / 16).astype(np.uint8)
    every = Examples(shades[..., np.newaxis], bunch.target.astype(np.int32))
    train, test = dataset.split(every, validation=TEST_EXAMPLES, seed=DIVISION_SEED)
    return train, test, CLASSES
