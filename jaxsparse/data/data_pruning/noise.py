"""Label noise: training sets with some wrong labels.

The noise is drawn once, on the host, before training. The order of the examples does
not change.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int64

HOW = ("permute", "uniform")


class Corrupted(NamedTuple):
    """Labels after some of them were drawn anew.

    Attributes:
      labels: labels of all examples, in the integer type of the original labels.
      rows: indices of the selected examples, in increasing order. With "permute", some
        of them keep their label.
    """

    labels: Int[np.ndarray, " n"]
    rows: Int64[np.ndarray, " m"]


def corrupt(
    labels: Int[np.ndarray, " n"], *, fraction: float, classes: int, seed: int, how: str
) -> Corrupted:
    """Draws the labels of randomly selected examples anew.

    Exactly round(`fraction` n) examples are selected, with halves rounded to even. With
    the same seed, a smaller fraction selects a subset of the examples of a larger one.

    - "permute": the labels of the selected examples are permuted at random. The number
      of examples of each class does not change, and some examples keep their label: if
      the classes are balanced, 1 / `classes` of them on average.
    - "uniform": each selected example gets one of the other classes, all with equal
      probability, and never its own. The new label does not depend on the fraction.

    Args:
      labels: true classes in [0, `classes`); not modified.
      fraction: fraction of the examples to select, in [0, 1].
      classes: number of classes, at least 1; at least 2 for "uniform".
      seed: seed of this draw alone, non-negative.
      how: "permute" or "uniform".

    Returns:
      The new labels and the indices of the selected examples.

    Raises:
      ValueError: if `how` is unknown, or a number or a label is out of range.

    Examples:
      >>> labels = np.array([0, 1, 0, 1])
      >>> corrupt(labels, fraction=1.0, classes=2, seed=0, how="uniform").labels
      array([1, 0, 1, 0])

    Deviations:
      "permute" is the method of the public code of Paul et al. (2021). That code rounds
      down, draws with `RandomState`, and afterward sorts the examples by their new
      labels. The text of that paper assigns a random label instead, which may be the
      true one. How Paul et al. (2022) drew labels is unknown; "uniform" is our choice.

    References:
      Paul, Ganguli, Dziugaite. Deep Learning on a Data Diet: Finding Important Examples
      Early in Training. 2021. arXiv:2107.07075, section 4.

      Paul, Larsen, Ganguli, Frankle, Dziugaite. Lottery Tickets on a Data Diet: Finding
      Initializations with Sparse Trainable Networks. 2022. arXiv:2206.01278.
    """
    _check(labels, fraction, classes, how)
    n = len(labels)
    # Not `default_rng`: numpy may change its default bit generator.
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = generator.permutation(n)[: round(fraction * n)].astype(np.int64)
    rows = np.sort(drawn)
    result = labels.copy()
    if how == "permute":
        result[rows] = labels[drawn]
    else:
        # Drawn for all examples, so that no new label depends on the fraction.
        shifts = generator.integers(1, classes, size=n)
        # int64, since the sum may overflow a small integer type.
        result[rows] = (labels[rows].astype(np.int64) + shifts[rows]) % classes
    return Corrupted(result, rows)


def _check(
    labels: Int[np.ndarray, " n"], fraction: float, classes: int, how: str
) -> None:
    if how not in HOW:
        raise ValueError(f"how: expected one of {HOW}, got {how!r}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: expected a fraction in [0, 1], got {fraction}")
    minimum = 2 if how == "uniform" else 1
    if classes < minimum:
        raise ValueError(
            f"classes: expected at least {minimum} with how={how!r}, got {classes}"
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"labels: expected 0 to {classes - 1}, got {labels.min()} to "
            f"{labels.max()}; number classes from 0, or correct `classes`"
        )
