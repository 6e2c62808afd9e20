"""Choosing training examples by their scores, on the host.

What comes out are rows of the training set; `examples.take` takes them.
"""

import numpy as np
from jaxtyping import Float, Int, Int64

HOW = ("easiest", "hardest", "random", "window")


def choose(
    scores: Float[np.ndarray, " n"],
    size: int,
    *,
    how: str,
    labels: Int[np.ndarray, "_"] | None = None,
    classes: int | None = None,
    first: int | None = None,
    seed: int = 0,
) -> Int64[np.ndarray, " size"]:
    """Chooses exactly `size` examples.

    The examples are put in order, and one stretch of it is taken:

    - "easiest": by score, the lowest;
    - "hardest": by score, the highest;
    - "random": at random, without replacement;
    - "window": by score, those from rank `first` on, where 0 is the easiest.

    Equal scores are in the order of rows. So the s easiest and the n - s hardest share
    nothing and leave nothing out, and a window from rank f on is the f + s easiest
    without the f easiest.

    With `labels`, each class gets its stretch of its own examples: `size` // `classes`,
    and one more in the first `size` % `classes` classes. The ranks below `first` are
    divided in the same way.

    Args:
      scores: one an example, higher for harder; +inf is the hardest. Looked at for
        "random" too, of which only their number matters.
      size: examples wanted, 1 to n.
      how: one of `HOW`.
      labels: classes of the examples, counted from 0, to balance the subset; None not
        to.
      classes: how many classes there are; given if and only if `labels` are.
      first: rank of the first example of a window, 0 to n - `size`; given if and only
        if `how` is "window".
      seed: of the random order alone, non-negative. The same seed gives subsets that
        contain the smaller ones, balanced or not.

    Returns:
      Rows in increasing order.

    Raises:
      ValueError: if a score is NaN, `how` is unknown, a number is out of range, labels
        do not fit, or a class has too few examples, naming the class.

    Examples:
      >>> scores = np.array([0.3, 0.1, 0.2, 0.1])
      >>> choose(scores, 2, how="easiest")
      array([1, 3])
      >>> choose(scores, 2, how="window", first=1)
      array([2, 3])
      >>> labels = np.array([0, 1, 0, 1])
      >>> choose(scores, 3, how="easiest", labels=labels, classes=2)
      array([0, 1, 2])

    Deviations:
      The public code of both papers sorts in numpy's default way, which is not stable,
      and draws by `RandomState`: among equal scores, and at random, it takes other
      examples. Of balanced subsets, that of 2022 draws what is left over of random ones
      from all classes, and refuses a `first` that the classes do not divide.

    References:
      Paul, Ganguli, Dziugaite. Deep Learning on a Data Diet: Finding Important Examples
      Early in Training. 2021. arXiv:2107.07075, section 4 for windows.

      Paul, Larsen, Ganguli, Frankle, Dziugaite. Lottery Tickets on a Data Diet: Finding
      Initializations with Sparse Trainable Networks. 2022. arXiv:2206.01278.
    """
    _check(scores, size, how, first)
    order = _order(scores, how, seed)
    if labels is None and classes is None:
        return np.sort(_stretch(order, size, how, first or 0))
    _check_labels(labels, classes, len(scores))
    sizes, firsts = _shares(size, classes), _shares(first or 0, classes)
    parts = []
    for c in range(classes):
        own = order[labels[order] == c]
        if sizes[c] + firsts[c] > len(own):
            raise ValueError(_too_few(c, len(own), sizes[c], firsts[c]))
        parts.append(_stretch(own, sizes[c], how, firsts[c]))
    return np.sort(np.concatenate(parts))


def _order(
    scores: Float[np.ndarray, " n"], how: str, seed: int
) -> Int64[np.ndarray, " n"]:
    """Puts all rows in the order that stretches are taken from."""
    if how == "random":
        # The bit generator is named because numpy may change its default.
        generator = np.random.Generator(np.random.PCG64(seed))
        return generator.permutation(len(scores)).astype(np.int64)
    return np.argsort(scores, kind="stable").astype(np.int64)


def _stretch(
    order: Int64[np.ndarray, "_"], size: int, how: str, first: int
) -> Int64[np.ndarray, "_"]:
    start = len(order) - size if how == "hardest" else first
    return order[start : start + size]


def _shares(total: int, classes: int) -> list[int]:
    """Divides a number among classes; the first get what is left over."""
    return [total // classes + (c < total % classes) for c in range(classes)]


def _check(
    scores: Float[np.ndarray, " n"], size: int, how: str, first: int | None
) -> None:
    n = len(scores)
    if how not in HOW:
        raise ValueError(f"how: got {how!r}; wanted one of {HOW}")
    bad = np.flatnonzero(np.isnan(scores))
    if len(bad):
        raise ValueError(
            f"scores: got NaN for {len(bad)} of {n}, the first in row {bad[0]}; wanted "
            "numbers or +inf; an example without a score has no place in the order"
        )
    if not 1 <= size <= n:
        raise ValueError(
            f"size: got {size} of {n} examples; wanted 1 to {n}; ask for fewer"
        )
    if (first is None) == (how == "window"):
        raise ValueError(
            f"first: got {first} with how={how!r}; wanted a rank for windows and None "
            "otherwise"
        )
    if first is not None and not 0 <= first <= n - size:
        raise ValueError(
            f"first: got {first} for {size} of {n} examples; wanted 0 to {n - size}; "
            "begin earlier or take fewer"
        )


def _check_labels(
    labels: Int[np.ndarray, "_"] | None, classes: int | None, n: int
) -> None:
    if labels is None or classes is None:
        raise ValueError(
            f"classes: got {classes} with {'no' if labels is None else 'some'} labels; "
            "wanted both to balance the subset, or neither"
        )
    if classes < 1:
        raise ValueError(f"classes: got {classes}; wanted 1 or more")
    if len(labels) != n:
        raise ValueError(
            f"labels: got {len(labels)} for {n} scores; wanted one each; take both "
            "from the same dataset"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels: got {labels.min()} to {labels.max()}; wanted 0 to {classes - 1}; "
            "count classes from 0, or say how many there are"
        )


def _too_few(label: int, has: int, size: int, first: int) -> str:
    after = f" after the {first} easiest" if first else ""
    return (
        f"size: class {label} has {has} examples, and {size}{after} were wanted of it; "
        "ask for fewer, or leave the labels out to take classes as they come"
    )
