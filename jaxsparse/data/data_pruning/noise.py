"""Wrong labels: what happens to a training set of which some labels are noise.

The draw is on the host, once, before training. The order of examples stays.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int64

HOW = ("permute", "uniform")


class Corrupted(NamedTuple):
    """Labels of which some were drawn anew.

    Attributes:
      labels: of all examples, in the type they came in.
      rows: which were chosen, in increasing order.
    """

    labels: Int[np.ndarray, " n"]
    rows: Int64[np.ndarray, " m"]


def corrupt(
    labels: Int[np.ndarray, " n"], *, fraction: float, classes: int, seed: int, how: str
) -> Corrupted:
    """Draws the labels of some examples anew.

    Exactly round(`fraction` n) examples are chosen, halves going to the even number.
    With one seed a smaller fraction chooses among those of a larger.

    - "permute": the chosen examples exchange their labels at random. Every class keeps
      its number of examples, and some examples get the label they had: of balanced
      classes, one in `classes`.
    - "uniform": each chosen example gets one of the other classes, all equally likely;
      never its own, and the same one whatever the fraction.

    Args:
      labels: true classes in [0, `classes`); left as they are.
      fraction: of the examples, in [0, 1].
      classes: how many classes there are; 2 or more for "uniform".
      seed: of this draw alone, non-negative.
      how: one of `HOW`.

    Returns:
      The new labels, and which rows were chosen.

    Raises:
      ValueError: if `how` is unknown, a number is out of range, or a label is.

    Examples:
      >>> labels = np.array([0, 1, 0, 1])
      >>> corrupt(labels, fraction=1.0, classes=2, seed=0, how="uniform").labels
      array([1, 0, 1, 0])

    Deviations:
      "permute" is what the public code of Paul et al. (2021) does; it rounds downwards,
      draws by `RandomState`, and sorts the examples by their new labels afterwards. The
      paper's text has a random label instead, which may be the true one. How the labels
      of the paper of 2022 were drawn is unknown; "uniform" is ours.

    References:
      Paul, Ganguli, Dziugaite. Deep Learning on a Data Diet: Finding Important Examples
      Early in Training. 2021. arXiv:2107.07075, section 4.

      Paul, Larsen, Ganguli, Frankle, Dziugaite. Lottery Tickets on a Data Diet: Finding
      Initializations with Sparse Trainable Networks. 2022. arXiv:2206.01278.
    """
    _check(labels, fraction, classes, how)
    n = len(labels)
    # The bit generator is named because numpy may change its default.
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = generator.permutation(n)[: round(fraction * n)].astype(np.int64)
    rows = np.sort(drawn)
    result = labels.copy()
    if how == "permute":
        result[rows] = labels[drawn]
    else:
        # One for every example, so that no label depends on the fraction.
        shifts = generator.integers(1, classes, size=n)
        result[rows] = (labels[rows].astype(np.int64) + shifts[rows]) % classes
    return Corrupted(result, rows)


def _check(
    labels: Int[np.ndarray, " n"], fraction: float, classes: int, how: str
) -> None:
    if how not in HOW:
        raise ValueError(f"how: got {how!r}; wanted one of {HOW}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: got {fraction}; wanted 0 to 1 of the examples")
    fewest = 2 if how == "uniform" else 1
    if classes < fewest:
        raise ValueError(
            f"classes: got {classes}; wanted {fewest} or more for how={how!r}, so that "
            "there is a class to choose"
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"labels: got {labels.min()} to {labels.max()}; wanted 0 to {classes - 1}; "
            "count classes from 0, or say how many there are"
        )
