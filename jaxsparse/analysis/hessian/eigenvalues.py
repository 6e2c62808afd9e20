r"""Statistics of a set of eigenvalues: extremes, trace, and how many are negative.

An eigenvalue counts as negative if it is below
:math:`-\epsilon \sqrt{n} \max|\lambda|`, with the machine epsilon of the dtype in which
the Hessian was computed. If each entry of the matrix has a relative error of at most
:math:`\epsilon`, no eigenvalue is off by more than this, since the Frobenius norm is at
most :math:`\sqrt{n} \max|\lambda|`.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxsparse import arguments
from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks


class Spectrum(NamedTuple):
    """All eigenvalues of a Hessian, and how they were computed.

    Attributes:
      eigenvalues: all eigenvalues, [n] in float64, ascending.
      n: number of eigenvalues.
      zeros_added: number of eigenvalues that were added for masked coordinates by
        `dense`.
      examples: number of examples over which the loss was averaged.
      dtype: name of the dtype in which the Hessian was computed.
      asymmetry: Frobenius norm of the antisymmetric part that was removed from the
        Hessian.
      vectors: eigenvectors in the active coordinates, as columns, in ascending order of
        their eigenvalues before `dense`; None if not requested.
    """

    eigenvalues: Float[np.ndarray, "n"]
    n: int
    zeros_added: int
    examples: int
    dtype: str
    asymmetry: float
    vectors: Float[np.ndarray, "active active"] | None


@arguments.check(spectrum=arguments.instance(Spectrum), masks=arguments.masks)
def dense(spectrum: Spectrum, masks: Masks) -> Spectrum:
    """Adds a zero eigenvalue for each masked coordinate.

    The Hessian of a network that applies its masks has a row and a column of zeros for
    each masked coordinate.

    Args:
      spectrum: spectrum in the active coordinates.
      masks: the masks with which it was computed.

    Returns:
      The spectrum of the Hessian in all coordinates.

    Raises:
      ValueError: if zeros were added before.
    """
    if spectrum.zeros_added:
        raise ValueError(
            "spectrum: expected the spectrum of the active coordinates, got one with "
            f"{spectrum.zeros_added} added zeros"
        )
    zeros = masks_lib.size(masks) - masks_lib.num_active(masks)
    values = np.sort(np.concatenate([spectrum.eigenvalues, np.zeros(zeros)]))
    return spectrum._replace(eigenvalues=values, n=values.size, zeros_added=zeros)


def tolerance(eigenvalues: Any, dtype: Any = np.float32) -> float:
    """Returns the magnitude below which an eigenvalue may be rounding error.

    Args:
      eigenvalues: all eigenvalues, in any order.
      dtype: dtype in which the Hessian was computed.

    Returns:
      The machine epsilon times the square root of the number of eigenvalues times the
      largest magnitude.

    Raises:
      ValueError: if there are no eigenvalues, or one is not finite.
    """
    values = np.abs(_checked(eigenvalues))
    return float(np.finfo(dtype).eps * math.sqrt(values.size) * values.max())


@arguments.check(threshold=arguments.optional(arguments.number(0)))
def summarize(
    eigenvalues: Any, *, dtype: Any = np.float32, threshold: float | None = None
) -> dict[str, float]:
    r"""Computes statistics of a set of eigenvalues.

    Args:
      eigenvalues: all eigenvalues, in any order.
      dtype: dtype in which the Hessian was computed; determines the default threshold.
      threshold: an eigenvalue is negative below -`threshold` and positive above
        `threshold`, 0 or more; None for `tolerance`.

    Returns:
      "n", "max", "min", "trace", "threshold", "negatives" (number of negative
      eigenvalues), "negative_fraction" (of n, in [0, 1]), "negative_mass"
      (:math:`\sum |\lambda_-| / \sum |\lambda|`, in [0, 1]; 0 if all eigenvalues are
      0), "positives" and "positive_fraction", all as Python floats.

    Raises:
      ValueError: if there are no eigenvalues, or one is not finite.

    Examples:
      >>> found = summarize([-1.0, 0.0, 0.0, 3.0])
      >>> found["negatives"], found["negative_fraction"], found["negative_mass"]
      (1.0, 0.25, 0.25)
    """
    values = _checked(eigenvalues)
    limit = tolerance(values, dtype) if threshold is None else threshold
    negative = values < -limit
    positives = int(np.count_nonzero(values > limit))
    total_mass = float(np.sum(np.abs(values)))
    mass = float(np.sum(np.abs(values[negative])))
    return {
        "n": float(values.size),
        "max": float(values.max()),
        "min": float(values.min()),
        "trace": float(values.sum()),
        "threshold": float(limit),
        "negatives": float(np.count_nonzero(negative)),
        "negative_fraction": float(np.mean(negative)),
        "negative_mass": mass / total_mass if total_mass else 0.0,
        "positives": float(positives),
        "positive_fraction": positives / values.size,
    }


@arguments.check(threshold=arguments.optional(arguments.number(0)))
def compare(
    before: Any, after: Any, *, dtype: Any = np.float32, threshold: float | None = None
) -> dict[str, float]:
    """Computes how a spectrum changed, for example through a mask update.

    Both spectra are evaluated with one threshold, by default the larger of their
    tolerances. An eigenvalue then does not become negative only because another one
    shrank.

    Args:
      before: eigenvalues before the change, in any order.
      after: eigenvalues after the change; their number may differ.
      dtype: dtype in which the Hessians were computed; determines the default
        threshold.
      threshold: an eigenvalue is negative below -`threshold`, 0 or more; None for the
        larger `tolerance` of the two spectra.

    Returns:
      "new_negatives" (the number of negative eigenvalues after minus the number
      before); "max_change", "min_change", "trace_change", "negative_fraction_change"
      and "negative_mass_change" (values after minus values before); and "threshold".

    Raises:
      ValueError: if there are no eigenvalues, or one is not finite.

    Examples:
      >>> compare([0.0, 2.0], [-1.0, 3.0])["new_negatives"]
      1.0
    """
    if threshold is None:
        threshold = max(tolerance(before, dtype), tolerance(after, dtype))
    stats_before = summarize(before, threshold=threshold)
    stats_after = summarize(after, threshold=threshold)
    names = ("max", "min", "trace", "negative_fraction", "negative_mass")
    return {
        "new_negatives": stats_after["negatives"] - stats_before["negatives"],
        **{f"{name}_change": stats_after[name] - stats_before[name] for name in names},
        "threshold": float(threshold),
    }


def _checked(eigenvalues: Any) -> Float[np.ndarray, "n"]:
    values = np.asarray(eigenvalues, np.float64)
    finite = bool(np.all(np.isfinite(values)))
    if values.ndim != 1 or not values.size or not finite:
        raise ValueError(
            "eigenvalues: expected a list of one or more finite numbers, got shape "
            f"{values.shape}, all finite: {finite}"
        )
    return values
