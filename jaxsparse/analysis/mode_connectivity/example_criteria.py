"""Barriers of single examples on linear paths, and which examples are connected."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from jaxsparse import arguments
from jaxsparse.analysis.mode_connectivity import barriers as barriers_lib
from jaxsparse.analysis.mode_connectivity import interpolation

POINTS = ("midpoint", "maximum")


class ByClass(NamedTuple):
    """Barriers of single examples, averaged over each class.

    Attributes:
      mean: mean barrier of each class, [k]; NaN for a class without examples.
      connected: fraction of connected examples in each class, [k], in [0, 1]; NaN for a
        class without examples.
      count: number of examples in each class, [k].
    """

    mean: Float[np.ndarray, "k"]
    connected: Float[np.ndarray, "k"]
    count: Int[np.ndarray, "k"]


def example_barrier(
    example_loss: Shaped[np.ndarray, "a n"],
    alphas: interpolation.Alphas,
    *,
    at: str = "midpoint",
) -> Float[np.ndarray, "n"]:
    r"""Computes the barrier of each example.

    With the loss :math:`\ell_i` of example :math:`i`, the barrier is

    - midpoint: :math:`\ell_i(1/2) - (\ell_i(0) + \ell_i(1)) / 2`, which may be
      negative;
    - maximum: the highest excess over the line through the ends, 0 or more. As each
      example has its own highest position, the mean of these barriers is at least the
      barrier of the mean loss.

    Args:
      example_loss: losses of n examples at a positions, [a, n], such as
        `along_path(...).example_loss`.
      alphas: positions on the line, [a], including 0 and 1 and, for the midpoint, 0.5.
        The definition of the paper only needs (0.0, 0.5, 1.0).
      at: "midpoint" or "maximum", as defined here.

    Returns:
      The barriers, [n] in float64; not finite where a loss is not.

    Raises:
      ValueError: if `at` is unknown, if 0, 1 or, for the midpoint, 0.5 is not among the
        positions, or if the numbers of positions and losses differ.

    Examples:
      >>> example_barrier(np.array([[1.0, 2.0], [4.0, 1.0], [3.0, 2.0]]), (0, 0.5, 1))
      array([ 2., -1.])

    References:
      Paul, Larsen, Ganguli, Frankle, Dziugaite. Lottery Tickets on a Data Diet: Finding
      Initializations with Sparse Trainable Networks. 2022. arXiv:2206.01278: the
      midpoint, for losses of training examples without augmentation.
    """
    if at not in POINTS:
        raise ValueError(f"at: expected one of {POINTS}, got {at!r}")
    if at == "maximum":
        return barriers_lib.barrier(example_loss, alphas)
    excess_values, positions = (
        barriers_lib.excess(example_loss, alphas),
        interpolation.check_alphas(alphas),
    )
    if 0.5 not in positions:
        raise ValueError(
            f"alphas: expected 0.5 among them, got {positions.tolist()}; add it, or "
            "pass at='maximum'"
        )
    return excess_values[positions == 0.5][0]


@arguments.check(threshold=arguments.number(finite=False))
def connected_fraction(barriers: Shaped[np.ndarray, "n"], threshold: float) -> float:
    """Computes the fraction of examples whose barrier is at most a threshold.

    Args:
      barriers: barriers of one or more examples, [n], such as `example_barrier`
        returns, or their mean over pairs.
      threshold: largest barrier of a connected example, in the unit of the barriers
        (nats for the cross-entropy).

    Returns:
      A fraction in [0, 1].

    Raises:
      ValueError: if there are no barriers, one is not finite, or the threshold is NaN.

    Examples:
      >>> connected_fraction(np.array([-0.1, 0.0, 0.5, 2.0]), 0.5)
      0.75

    Deviations:
      There is no default threshold, since that of Paul et al. (2022), arXiv:2206.01278,
      is unknown. Bins of their histograms end at 0 and 0.5.
    """
    return float(np.mean(_connected(barriers, threshold)))


def by_class(
    barriers: Shaped[np.ndarray, "n"],
    labels: Int[np.ndarray, "n"],
    classes: int,
    threshold: float,
) -> ByClass:
    """Averages barriers over the examples of each class.

    Args:
      barriers: barriers of one or more examples, [n], such as `example_barrier`
        returns, or their mean over pairs.
      labels: class of each example, [n], integers in [0, classes).
      classes: number of classes.
      threshold: largest barrier of a connected example, in the unit of the barriers
        (nats for the cross-entropy).

    Returns:
      The mean barrier, the fraction of connected examples and the number of examples of
      each class.

    Raises:
      ValueError: if there are no barriers, one is not finite, the threshold is NaN, or
        a label is out of range.

    Examples:
      >>> by_class(np.array([0.0, 1.0, 3.0]), np.array([0, 0, 1]), 3, 0.5).connected
      array([0.5, 0. , nan])
    """
    connected = _connected(barriers, threshold)
    is_invalid = (labels < 0) | (labels >= classes)
    if np.any(is_invalid):
        index = int(np.argmax(is_invalid))
        raise ValueError(
            f"labels: expected classes from 0 to {classes - 1}, got {labels[index]} "
            f"for example {index}"
        )
    count, total, num_connected = (
        np.bincount(labels, weights, minlength=classes)
        for weights in (None, np.asarray(barriers, np.float64), connected)
    )
    # A class without examples divides 0 by 0; the resulting NaN is documented.
    with np.errstate(invalid="ignore"):
        return ByClass(total / count, num_connected / count, count)


def _connected(
    barriers: Shaped[np.ndarray, "n"], threshold: float
) -> Shaped[np.ndarray, "n"]:
    """Returns for each example whether its barrier is at most the threshold."""
    finite = np.isfinite(barriers)
    if not barriers.size or not np.all(finite):
        given_values = "none"
        if barriers.size:
            index = int(np.argmin(finite))
            given_values = f"{barriers[index]} for example {index} of {barriers.size}"
        raise ValueError(
            f"barriers: expected one or more finite numbers, got {given_values}; check "
            "whether training diverged"
        )
    if math.isnan(threshold):
        raise ValueError("threshold: expected a number, got nan")
    return barriers <= threshold
