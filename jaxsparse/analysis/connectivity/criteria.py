"""What is said of a segment: stable, matching, in one basin, connected.

Verdicts on values that `segment.along_segment` found, as the papers word them; pure
functions of numpy arrays. Training the ends, and choosing which are pairs, is up to the
caller, and so is an average over pairs: `np.mean`.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from jaxsparse import arguments
from jaxsparse.analysis.connectivity import barriers as barriers_lib
from jaxsparse.analysis.connectivity import interpolation

# Frankle et al. (2020) as secondary sources report it; fractions, not percent.
STABLE_BELOW = 0.02
MATCHING_BELOW = 0.002
POINTS = ("midpoint", "maximum")
DECIMALS = 12  # of what is compared, so that 0.92 - 0.918 is 0.002


class Stability(NamedTuple):
    """What is said of a network trained several times from one state.

    Attributes:
      mean: instability, averaged over pairs, in [0, 1].
      sd: its standard deviation over pairs, with n - 1; NaN of a single pair. Pairs
        that share a network are not independent.
      n: how many pairs there are.
      stable: whether the mean is below `STABLE_BELOW`.
      matching: whether the accuracy is less than `MATCHING_BELOW` under the dense
        network's; None if not asked for.
    """

    mean: float
    sd: float
    n: int
    stable: bool
    matching: bool | None


class ByClass(NamedTuple):
    """Barriers of the examples of each class.

    Attributes:
      mean: mean barrier; NaN of a class without examples.
      connected: fraction connected, in [0, 1]; NaN likewise.
      count: examples.
    """

    mean: Float[np.ndarray, "k"]
    connected: Float[np.ndarray, "k"]
    count: Int[np.ndarray, "k"]


def instability(
    error: Shaped[np.ndarray, "a ..."], alphas: interpolation.Alphas
) -> Float[np.ndarray, "..."]:
    r"""Computes how far errors rise between two copies of a network.

    With the error :math:`e` it is :math:`\max_\alpha e(\alpha) - (e(0) + e(1)) / 2`,
    the `barrier` above the mean of the ends. The copies are trained from one state
    with different noise.

    Args:
      error: fractions in [0, 1], points first; further axes, such as pairs, are kept.
      alphas: the points, 0 and 1 among them; the paper has 30, see `UNIT_ALPHAS`.
        Those outside [0, 1] are left aside.

    Returns:
      One number for each pair, in [0, 1]; half the difference of the ends, where no
      point is worse than the worse end.

    Raises:
      ValueError: if an error is not in [0, 1], and as `barrier`.

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

    That is :math:`\max_\alpha v(\alpha) - \max(v(0), v(1))`: 0 says that whoever goes
    along the segment is never worse off than at one of its ends, so that both may lie
    in one basin. The `instability` is this and half the difference of the ends, which
    matters where these were pruned to different sparsities, such as successive rounds.

    Args:
      values: errors or losses, points first; further axes are kept.
      alphas: the points, 0 and 1 among them; the paper has 20. Those outside [0, 1]
        are left aside.

    Returns:
      One number for each further axis, never negative; NaN where an end is not finite.

    Raises:
      ValueError: as `barrier`.

    Examples:
      >>> max_increase(np.array([0.1, 0.5, 0.3]), [0.0, 0.5, 1.0])
      array(0.2)

    Deviations:
      Above what the paper measures its "max error increase" is not known for certain.
      If it is the mean of the ends, as in Frankle et al., take `instability`; if the
      line through them, `barrier`. All three agree where the ends do.

    References:
      Maene, Li, Moens. Towards Understanding Iterative Magnitude Pruning: Why Lottery
      Tickets Win. 2021. arXiv:2106.06955.
    """
    barriers_lib.excess(values, alphas)  # for what it refuses
    values, places = np.asarray(values, np.float64), interpolation.check_alphas(alphas)
    ends = np.maximum(values[places == 0.0][0], values[places == 1.0][0])
    with np.errstate(invalid="ignore"):
        highest = np.max(values[(places >= 0) & (places <= 1)], axis=0)
        return np.asarray(highest - ends)


def classify_stability(
    instabilities: Shaped[np.ndarray, "..."],
    *,
    accuracy: Shaped[np.ndarray, "..."] | float | None = None,
    dense_accuracy: Shaped[np.ndarray, "..."] | float | None = None,
) -> Stability:
    """Says whether a network is stable, and whether it matches the dense one.

    Args:
      instabilities: one or more in [0, 1], over pairs and seeds, of any shape.
      accuracy: of the network trained, fractions in [0, 1], averaged over seeds. None,
        together with `dense_accuracy`, to judge stability alone.
      dense_accuracy: of the dense network, likewise.

    Returns:
      The verdict. Means and drops are compared in 12 decimals, and strictly: a drop of
      20 examples in 10,000 is no match.

    Raises:
      ValueError: if there are no numbers, one is not in [0, 1], or one of the two
        accuracies comes alone.

    Examples:
      >>> judge(np.array([0.01, 0.02]), accuracy=0.914, dense_accuracy=0.915)
      Verdict(mean=0.015, sd=0.007071067811865475, n=2, stable=True, matching=True)

    Deviations:
      Both thresholds are known from secondary sources only, and so is that the mean is
      compared. To judge by others, compare `mean` with them.

    References:
      Frankle, Dziugaite, Roy, Carbin. Linear Mode Connectivity and the Lottery Ticket
      Hypothesis. 2020. arXiv:1912.05671: 3 initialisations and 3 pairs of each.
    """
    mean = _mean_fraction(instabilities, field="instabilities")
    flat = np.asarray(instabilities, np.float64).reshape(-1)
    sd = float(np.std(flat, ddof=1)) if flat.size > 1 else math.nan
    if (accuracy is None) != (dense_accuracy is None):
        alone = "accuracy" if dense_accuracy is None else "dense_accuracy"
        raise ValueError(f"{alone}: came alone; wanted both accuracies or neither")
    matching = None
    if accuracy is not None:
        drop = _mean_fraction(dense_accuracy, field="dense_accuracy")
        drop -= _mean_fraction(accuracy, field="accuracy")
        matching = round(drop, DECIMALS) < MATCHING_BELOW
    stable = round(mean, DECIMALS) < STABLE_BELOW
    return Stability(mean, sd, flat.size, stable, matching)


def example_barrier(
    example_loss: Shaped[np.ndarray, "a n"],
    alphas: interpolation.Alphas,
    *,
    at: str = "midpoint",
) -> Float[np.ndarray, "n"]:
    r"""Computes each example's own barrier.

    With the loss :math:`\ell_i` of example :math:`i`,

    - midpoint: :math:`\ell_i(1/2) - (\ell_i(0) + \ell_i(1)) / 2`, of either sign;
    - maximum: the highest excess over the line through the ends, never negative. As
      each example has its own highest point, their mean is no less than the barrier of
      the mean loss.

    Args:
      example_loss: `along_segment(..., per_example=True).example_loss`.
      alphas: its points, 0 and 1 among them, and for the midpoint 0.5. (0.0, 0.5, 1.0)
        are enough for the paper.
      at: see above.

    Returns:
      Barriers in float64; not finite where a loss is not.

    Raises:
      ValueError: if `at` is unknown, 0.5 is missing for the midpoint, and as `excess`.

    Examples:
      >>> example_barrier(np.array([[1.0, 2.0], [4.0, 1.0], [3.0, 2.0]]), (0, 0.5, 1))
      array([ 2., -1.])

    References:
      Paul, Larsen, Ganguli, Frankle, Dziugaite. Lottery Tickets on a Data Diet:
      Finding Initializations with Sparse Trainable Networks. 2022. arXiv:2206.01278:
      the midpoint, of losses of training examples that are not augmented.
    """
    if at not in POINTS:
        raise ValueError(f"at: got {at!r}; wanted one of {POINTS}")
    if at == "maximum":
        return barriers_lib.barrier(example_loss, alphas)
    over, places = (
        barriers_lib.excess(example_loss, alphas),
        interpolation.check_alphas(alphas),
    )
    if 0.5 not in places:
        raise ValueError(
            f"alphas: got {places.tolist()}; wanted 0.5 among them, or at='maximum'"
        )
    return over[places == 0.5][0]


@arguments.check(threshold=arguments.number(finite=False))
def connected_fraction(barriers: Shaped[np.ndarray, "n"], threshold: float) -> float:
    """Returns the fraction of examples whose barrier is at most a threshold.

    Args:
      barriers: of one or more examples, such as those of `example_barrier` or their
        mean over pairs.
      threshold: in the unit of the barriers, nats for the cross-entropy.

    Returns:
      A fraction in [0, 1].

    Raises:
      ValueError: if there are no barriers, one is not finite, or the threshold is NaN.

    Examples:
      >>> connected_fraction(np.array([-0.1, 0.0, 0.5, 2.0]), 0.5)
      0.75

    Deviations:
      The threshold of Paul et al. (2022), see `example_barrier`, is unknown, so there
      is no default. Bins of their histograms end at 0 and 0.5.
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
      barriers: as in `connected_fraction`.
      labels: class of each example, in [0, classes).
      classes: how many there are.
      threshold: as in `connected_fraction`.

    Returns:
      For each class its mean barrier, its fraction connected and its size.

    Raises:
      ValueError: as `connected_fraction`, or for a label out of range.

    Examples:
      >>> by_class(np.array([0.0, 1.0, 3.0]), np.array([0, 0, 1]), 3, 0.5).connected
      array([0.5, 0. , nan])
    """
    connected = _connected(barriers, threshold)
    wrong = (labels < 0) | (labels >= classes)
    if np.any(wrong):
        place = int(np.argmax(wrong))
        raise ValueError(
            f"labels: example {place} has {labels[place]}; wanted 0 to {classes - 1}"
        )
    count, total, held = (
        np.bincount(labels, weights, minlength=classes)
        for weights in (None, np.asarray(barriers, np.float64), connected)
    )
    with np.errstate(invalid="ignore"):
        return ByClass(total / count, held / count, count)


def _connected(
    barriers: Shaped[np.ndarray, "n"], threshold: float
) -> Shaped[np.ndarray, "n"]:
    """Says for each example whether it is connected."""
    finite = np.isfinite(barriers)
    if not barriers.size or not np.all(finite):
        what = "none"
        if barriers.size:
            place = int(np.argmin(finite))
            what = f"{barriers[place]} for example {place} of {barriers.size}"
        raise ValueError(
            f"barriers: got {what}; wanted finite numbers; did the training of an end "
            "diverge?"
        )
    if math.isnan(threshold):
        raise ValueError("threshold: got nan; wanted a number")
    return barriers <= threshold


def _check_fractions(values: Shaped[np.ndarray, "..."] | float, *, field: str) -> None:
    """Refuses what is not in [0, 1]: percent, and NaN."""
    values = np.asarray(values, np.float64)
    inside = (values >= 0) & (values <= 1)
    if not np.all(inside):
        raise ValueError(
            f"{field}: got {values[~inside].flat[0]}; wanted fractions in [0, 1], not "
            "percent"
        )


def _mean_fraction(values: Shaped[np.ndarray, "..."] | float, *, field: str) -> float:
    """Averages one or more fractions."""
    _check_fractions(values, field=field)
    if not np.size(values):
        raise ValueError(f"{field}: got none; wanted one or more fractions in [0, 1]")
    return float(np.mean(np.asarray(values, np.float64)))
