"""Error barriers: the rise of loss or error between two solutions above a baseline."""

import numpy as np
from jaxtyping import Float, Shaped

from jaxsparse.analysis.mode_connectivity import interpolation

BASELINES = ("linear", "mean")


def excess(
    values: Shaped[np.ndarray, "a ..."],
    alphas: interpolation.Alphas,
    *,
    baseline: str = "linear",
) -> Float[np.ndarray, "a ..."]:
    r"""Computes how far values on a linear path lie above a baseline.

    With the value :math:`v(\alpha)` at position :math:`\alpha`, the baseline is

    - linear: :math:`(1 - \alpha) \, v(0) + \alpha \, v(1)`;
    - mean: :math:`(v(0) + v(1)) / 2`.

    Both agree at the midpoint. Applied to the losses of single examples, the excess at
    the midpoint is the per-example barrier, which may be negative:
    `excess(s.example_loss, s.alphas)[s.alphas == 0.5][0]`.

    Args:
      values: losses or errors, [a, ...] with one row per position; other axes are kept.
      alphas: positions on the line, [a], including 0 and 1.
      baseline: "linear" or "mean", as defined here.

    Returns:
      The excess at each position, [a, ...] in float64; NaN where a value at 0 or 1 is
      not finite.

    Raises:
      ValueError: if 0 or 1 is not among the positions, the numbers of positions and
        values differ, or `baseline` is unknown.

    References:
      Paul, Larsen, Ganguli, Frankle, Dziugaite. Lottery Tickets on a Data Diet: Finding
      Initializations with Sparse Trainable Networks. 2022. arXiv:2206.01278, for the
      barrier of single examples.
    """
    values = np.asarray(values, np.float64)
    positions = interpolation.check_alphas(alphas)
    if baseline not in BASELINES:
        raise ValueError(f"baseline: expected one of {BASELINES}, got {baseline!r}")
    if values.shape[:1] != positions.shape:
        raise ValueError(
            f"values: expected a first axis of {positions.size}, one entry for each of "
            f"alphas, got shape {values.shape}"
        )
    if not {0.0, 1.0} <= set(positions.tolist()):
        raise ValueError(
            f"alphas: expected 0 and 1 among them, got {positions.tolist()}"
        )
    start, end = values[positions == 0.0][0], values[positions == 1.0][0]
    position = positions.reshape((-1,) + (1,) * (values.ndim - 1))
    # Infinite losses at both ends give inf - inf; the resulting NaN is documented.
    with np.errstate(invalid="ignore"):
        if baseline == "mean":
            return values - (start + end) / 2
        return values - ((1 - position) * start + position * end)


def barrier(
    values: Shaped[np.ndarray, "a ..."],
    alphas: interpolation.Alphas,
    *,
    baseline: str = "linear",
) -> Float[np.ndarray, "..."]:
    """Computes the highest excess over the baseline between two solutions.

    For the errors of two copies trained from one state with different SGD noise, and
    the baseline "mean", this is the instability of Frankle et al.; they call a network
    stable if it is below 0.02.

    Args:
      values: losses or errors, [a, ...] with one row per position; other axes are kept.
      alphas: positions on the line, [a], including 0 and 1. Positions outside [0, 1]
        are ignored.
      baseline: "linear" for the line through both ends, or "mean" for the mean of both
        ends, as in Frankle et al. (2020). They differ if the values at the ends differ.

    Returns:
      The barrier for each element of the other axes of `values`, 0 or more; 0 if no
      value lies above the baseline, as for a convex loss.

    Raises:
      ValueError: if 0 or 1 is not among the positions, the numbers of positions and
        values differ, or `baseline` is unknown.

    Examples:
      >>> barrier(np.array([0.1, 0.5, 0.3]), [0.0, 0.5, 1.0])
      array(0.3)

    References:
      Frankle, Dziugaite, Roy, Carbin. Linear Mode Connectivity and the Lottery Ticket
      Hypothesis. 2020. arXiv:1912.05671, section 2: mean.

      Paul, Ganguli, Dziugaite. Deep Learning on a Data Diet: Finding Important Examples
      Early in Training. 2021. arXiv:2107.07075, equation 5: linear.
    """
    excess_values, positions = (
        excess(values, alphas, baseline=baseline),
        interpolation.check_alphas(alphas),
    )
    return np.asarray(
        np.max(excess_values[(positions >= 0) & (positions <= 1)], axis=0)
    )
