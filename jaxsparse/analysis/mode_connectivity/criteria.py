"""Criteria on linear paths: stable, matching, in one basin, connected.

These functions classify the values that `linear_path.along_path` returns by the
criteria of the papers; they are pure functions of numpy arrays. The caller trains the
networks, chooses the pairs, and averages over pairs with `np.mean`.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from jaxsparse.analysis.mode_connectivity import barriers as barriers_lib
from jaxsparse.analysis.mode_connectivity import interpolation

# Thresholds of Frankle et al. (2020) as secondary sources report them, as fractions.
STABLE_BELOW = 0.02
MATCHING_BELOW = 0.002
# Comparisons round to these decimals: in float64, 0.92 - 0.918 is not exactly 0.002.
DECIMALS = 12


class Stability(NamedTuple):
    """Stability of a network trained several times from one state.

    Attributes:
      mean: instability, averaged over pairs, in [0, 1].
      sd: standard deviation of the instability over pairs, with n - 1 degrees of
        freedom; NaN for a single pair. Pairs that share a network are not independent.
      n: number of pairs.
      stable: whether `mean` is below `STABLE_BELOW`.
      matching: whether the accuracy of the dense network exceeds the accuracy by less
        than `MATCHING_BELOW`; None if no accuracies were given.
    """

    mean: float
    sd: float
    n: int
    stable: bool
    matching: bool | None


def instability(
    error: Shaped[np.ndarray, "a ..."], alphas: interpolation.Alphas
) -> Float[np.ndarray, "..."]:
    r"""Computes the rise of the error between two copies of a network.

    With the error :math:`e` the instability is
    :math:`\max_\alpha e(\alpha) - (e(0) + e(1)) / 2`, the `barrier` over the mean of
    the ends. The copies are trained from one state with different SGD noise.

    Args:
      error: errors as fractions in [0, 1], [a, ...] with one row per position; other
        axes, such as pairs, are kept.
      alphas: positions on the line, [a], including 0 and 1; the paper uses 30, as in
        `UNIT_ALPHAS`. Positions outside [0, 1] are ignored.

    Returns:
      The instability of each pair, in [0, 1]. If no position is worse than the worse
      end, it is half the difference between the ends.

    Raises:
      ValueError: if an error is not in [0, 1], 0 or 1 is not among the positions, or
        the numbers of positions and errors differ.

    Examples:
      >>> instability(np.array([0.1, 0.5, 0.3]), [0.0, 0.5, 1.0])
      array(0.3)

    References:
      Frankle, Dziugaite, Roy, Carbin. Linear Mode Connectivity and the Lottery Ticket
      Hypothesis. 2020. arXiv:1912.05671, section 2.
    """
    _check_fractions(error, field="error")
    return barriers_lib.barrier(error, alphas, baseline="mean")


def max_increase(
    values: Shaped[np.ndarray, "a ..."], alphas: interpolation.Alphas
) -> Float[np.ndarray, "..."]:
    r"""Computes how far values rise above the worse of both ends.

    It is :math:`\max_\alpha v(\alpha) - \max(v(0), v(1))`. If it is 0, no position on
    the path is worse than the worse end, so that both ends may lie in one basin. The
    `instability` is this value plus half the difference between the ends. The two
    differ if the ends do, for example for solutions of different sparsities, such as
    those of successive levels.

    Args:
      values: errors or losses, [a, ...] with one row per position; other axes are kept.
      alphas: positions on the line, [a], including 0 and 1; the paper uses 20.
        Positions outside [0, 1] are ignored.

    Returns:
      The increase for each element of the other axes of `values`, 0 or more; NaN where
      an end is not finite.

    Raises:
      ValueError: if 0 or 1 is not among the positions, or the numbers of positions and
        values differ.

    Examples:
      >>> max_increase(np.array([0.1, 0.5, 0.3]), [0.0, 0.5, 1.0])
      array(0.2)

    Deviations:
      It is not known for certain from which baseline the paper measures its "max error
      increase". If it is the mean of the ends, as in Frankle et al., use `instability`;
      if it is the line through them, use `barrier`. All three agree if the ends have
      equal values.

    References:
      Maene, Li, Moens. Towards Understanding Iterative Magnitude Pruning: Why Lottery
      Tickets Win. 2021. arXiv:2106.06955.
    """
    barriers_lib.excess(values, alphas)  # Only to validate the arguments.
    values = np.asarray(values, np.float64)
    positions = interpolation.check_alphas(alphas)
    ends = np.maximum(values[positions == 0.0][0], values[positions == 1.0][0])
    with np.errstate(invalid="ignore"):
        highest = np.max(values[(positions >= 0) & (positions <= 1)], axis=0)
        return np.asarray(highest - ends)


def classify_stability(
    instabilities: Shaped[np.ndarray, "..."],
    *,
    accuracy: Shaped[np.ndarray, "..."] | float | None = None,
    dense_accuracy: Shaped[np.ndarray, "..."] | float | None = None,
) -> Stability:
    """Determines whether a network is stable, and whether it matches the dense network.

    Args:
      instabilities: one or more instabilities in [0, 1], over pairs and seeds, of any
        shape.
      accuracy: accuracies of the trained network over seeds, fractions in [0, 1], of
        any shape. None, together with `dense_accuracy`, to test stability only.
      dense_accuracy: accuracies of the dense network over seeds, fractions in [0, 1],
        of any shape; or None.

    Returns:
      The classification. Means and differences are rounded to 12 decimals and compared
      strictly: an accuracy lower by 20 examples in 10,000 is not matching.

    Raises:
      ValueError: if an argument is empty, a value is not in [0, 1], or only one of the
        two accuracies is given.

    Examples:
      >>> classify_stability(
      ...     np.array([0.01, 0.02]), accuracy=0.914, dense_accuracy=0.915
      ... )
      Stability(mean=0.015, sd=0.007071067811865475, n=2, stable=True, matching=True)

    Deviations:
      Both thresholds, and the fact that the mean is compared, are known from secondary
      sources only. To use other thresholds, compare `mean` with them.

    References:
      Frankle, Dziugaite, Roy, Carbin. Linear Mode Connectivity and the Lottery Ticket
      Hypothesis. 2020. arXiv:1912.05671: 3 initializations with 3 pairs each.
    """
    mean = _mean_fraction(instabilities, field="instabilities")
    flat = np.asarray(instabilities, np.float64).reshape(-1)
    sd = float(np.std(flat, ddof=1)) if flat.size > 1 else math.nan
    if (accuracy is None) != (dense_accuracy is None):
        given = "accuracy" if dense_accuracy is None else "dense_accuracy"
        raise ValueError(f"{given}: expected both accuracies or neither, got only one")
    matching = None
    if accuracy is not None:
        drop = _mean_fraction(dense_accuracy, field="dense_accuracy")
        drop -= _mean_fraction(accuracy, field="accuracy")
        matching = round(drop, DECIMALS) < MATCHING_BELOW
    stable = round(mean, DECIMALS) < STABLE_BELOW
    return Stability(mean, sd, flat.size, stable, matching)


def _check_fractions(values: Shaped[np.ndarray, "..."] | float, *, field: str) -> None:
    """Raises ValueError for values outside [0, 1], such as percentages and NaN."""
    values = np.asarray(values, np.float64)
    is_valid = (values >= 0) & (values <= 1)
    if not np.all(is_valid):
        raise ValueError(
            f"{field}: expected fractions in [0, 1], got {values[~is_valid].flat[0]}; "
            "divide percentages by 100"
        )


def _mean_fraction(values: Shaped[np.ndarray, "..."] | float, *, field: str) -> float:
    """Validates and averages one or more fractions."""
    _check_fractions(values, field=field)
    if not np.size(values):
        raise ValueError(f"{field}: expected one or more fractions in [0, 1], got none")
    return float(np.mean(np.asarray(values, np.float64)))
