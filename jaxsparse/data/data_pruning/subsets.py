"""Selection of training examples by their scores, on the host.

`choose` returns row indices of the training set, for `dataset.take`.
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
    """Selects exactly `size` examples by score or at random.

    The examples are sorted, and a contiguous range of them is selected:

    - "easiest": the examples with the lowest scores;
    - "hardest": the examples with the highest scores;
    - "random": examples drawn at random, without replacement;
    - "window": the examples from rank `first` on, where rank 0 has the lowest score.

    Equal scores are sorted by row. The s easiest and the n - s hardest examples are
    therefore disjoint and together complete, and a window from rank f consists of the
    f + s easiest examples without the f easiest.

    With `labels`, the subset is balanced: each class contributes a range of its own
    sorted examples. The first `size` % `classes` classes contribute `size` // `classes`
    + 1 examples, the others `size` // `classes`. The `first` ranks before a window are
    divided among the classes in the same way.

    Args:
      scores: one score per example; higher is harder, and +inf is the hardest. For
        "random", their values have no effect, but must not be NaN.
      size: number of examples to select, 1 to n.
      how: "easiest", "hardest", "random" or "window".
      labels: classes of the examples, counted from 0, to balance the subset; None for
        no balancing.
      classes: number of classes; required with `labels`, otherwise None.
      first: rank of the first example of a window, 0 to n - `size`; required for
        "window", otherwise None.
      seed: seed of the random order alone, non-negative. With the same seed, a larger
        subset contains the smaller ones, balanced or not.

    Returns:
      Row indices in increasing order.

    Raises:
      ValueError: if a score is NaN, `how` is unknown, a number is out of range, or
        labels do not fit; or if a class has too few examples, in which case the message
        names the class.

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
      The public code of both papers uses numpy's default sort, which is not stable, and
      draws with `RandomState`. It therefore selects other examples among equal scores
      and at random. For balanced subsets, the code of 2022 draws the remainder of a
      random subset from all classes, and rejects a `first` that is not divisible by the
      number of classes.

    References:
      Paul, Ganguli, Dziugaite. Deep Learning on a Data Diet: Finding Important Examples
      Early in Training. 2021. arXiv:2107.07075, section 4 for windows.

      Paul, Larsen, Ganguli, Frankle, Dziugaite. Lottery Tickets on a Data Diet: Finding
      Initializations with Sparse Trainable Networks. 2022. arXiv:2206.01278.
    """
    _check(scores, size, how, first)
    order = _order(scores, how, seed)
    if labels is None and classes is None:
        return np.sort(_range(order, size, how, first or 0))
    _check_labels(labels, classes, len(scores))
    sizes, firsts = _shares(size, classes), _shares(first or 0, classes)
    parts = []
    for c in range(classes):
        rows = order[labels[order] == c]
        if sizes[c] + firsts[c] > len(rows):
            raise ValueError(_too_few(c, len(rows), sizes[c], firsts[c]))
        parts.append(_range(rows, sizes[c], how, firsts[c]))
    return np.sort(np.concatenate(parts))


def _order(
    scores: Float[np.ndarray, " n"], how: str, seed: int
) -> Int64[np.ndarray, " n"]:
    """Returns all rows, sorted by score or in random order."""
    if how == "random":
        # Not `default_rng`: numpy may change its default bit generator.
        generator = np.random.Generator(np.random.PCG64(seed))
        return generator.permutation(len(scores)).astype(np.int64)
    return np.argsort(scores, kind="stable").astype(np.int64)


def _range(
    order: Int64[np.ndarray, "_"], size: int, how: str, first: int
) -> Int64[np.ndarray, "_"]:
    start = len(order) - size if how == "hardest" else first
    return order[start : start + size]


def _shares(total: int, classes: int) -> list[int]:
    """Divides a number among classes; the first classes get the remainder."""
    return [total // classes + (c < total % classes) for c in range(classes)]


def _check(
    scores: Float[np.ndarray, " n"], size: int, how: str, first: int | None
) -> None:
    n = len(scores)
    if how not in HOW:
        raise ValueError(f"how: expected one of {HOW}, got {how!r}")
    bad = np.flatnonzero(np.isnan(scores))
    if len(bad):
        raise ValueError(
            f"scores: expected numbers or +inf, got NaN for {len(bad)} of {n} "
            f"examples, the first in row {bad[0]}; give every example a score"
        )
    if not 1 <= size <= n:
        raise ValueError(f"size: expected 1 to {n}, the number of examples, got {size}")
    if (first is None) == (how == "window"):
        raise ValueError(
            "first: expected a rank with how='window' and None otherwise, got "
            f"{first} with how={how!r}"
        )
    if first is not None and not 0 <= first <= n - size:
        raise ValueError(
            f"first: expected a rank from 0 to {n - size} for {size} of {n} examples, "
            f"got {first}"
        )


def _check_labels(
    labels: Int[np.ndarray, "_"] | None, classes: int | None, n: int
) -> None:
    if labels is None or classes is None:
        raise ValueError(
            "classes: expected both labels and classes, to balance the subset, or "
            f"neither, got classes={classes} with "
            f"{'no' if labels is None else 'some'} labels"
        )
    if classes < 1:
        raise ValueError(f"classes: expected at least 1, got {classes}")
    if len(labels) != n:
        raise ValueError(
            f"labels: expected {n}, one for each score, got {len(labels)}; take both "
            "from the same dataset"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels: expected 0 to {classes - 1}, got {labels.min()} to "
            f"{labels.max()}; number classes from 0, or correct `classes`"
        )


def _too_few(label: int, available: int, size: int, first: int) -> str:
    after = f" after the {first} easiest" if first else ""
    return (
        f"size: expected at most the {available} examples of class {label}, got "
        f"{size}{after}; select fewer, or pass no labels, so that the subset is not "
        "balanced"
    )
