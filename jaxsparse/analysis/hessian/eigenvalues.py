r"""What a set of eigenvalues says: extremes, trace, and how much of it is negative.

An eigenvalue counts as negative below :math:`-\epsilon \sqrt{n} \max|\lambda|`, with
the machine epsilon of the type that the Hessian was computed in. If each entry of the
matrix is right to :math:`\epsilon` relative to its size, no eigenvalue is off by more,
since the Frobenius norm is at most :math:`\sqrt{n} \max|\lambda|`.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxsparse import arguments
from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks


class Spectrum(NamedTuple):
    """All eigenvalues of a Hessian, and what it was computed on.

    Attributes:
      eigenvalues: ascending, float64.
      n: how many there are.
      zeros_added: how many of them stand for masked coordinates, see `dense`.
      examples: how many examples the loss was averaged over.
      dtype: name of the type the Hessian was computed in.
      asymmetry: Frobenius norm of the antisymmetric part that was removed.
      vectors: eigenvectors of the active coordinates, as columns in the order they
        were found, ascending, or None.
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
    """Adds the zeros of the coordinates that are masked.

    The Hessian of a network that applies its masks has a row and a column of zeros for
    each of them.

    Args:
      spectrum: of the active coordinates.
      masks: the masks it was computed with.

    Returns:
      The spectrum of the Hessian in all coordinates.

    Raises:
      ValueError: if zeros were added before.
    """
    if spectrum.zeros_added:
        raise ValueError(
            f"spectrum: {spectrum.zeros_added} zeros were added before; wanted the "
            "spectrum of the active coordinates"
        )
    zeros = masks_lib.size(masks) - masks_lib.num_active(masks)
    values = np.sort(np.concatenate([spectrum.eigenvalues, np.zeros(zeros)]))
    return spectrum._replace(eigenvalues=values, n=values.size, zeros_added=zeros)


def tolerance(eigenvalues: Any, dtype: Any = np.float32) -> float:
    """Returns below which size an eigenvalue is rounding; see the module.

    Args:
      eigenvalues: all of them.
      dtype: what the Hessian was computed in.

    Returns:
      Machine epsilon times the root of their number times the largest absolute value.
    """
    values = np.abs(_checked(eigenvalues))
    return float(np.finfo(dtype).eps * math.sqrt(values.size) * values.max())


@arguments.check(threshold=arguments.optional(arguments.number(0)))
def summarise(
    eigenvalues: Any, *, dtype: Any = np.float32, threshold: float | None = None
) -> dict[str, float]:
    r"""Describes a set of eigenvalues in a few numbers.

    Args:
      eigenvalues: all of them, in any order.
      dtype: what the Hessian was computed in; sets the threshold.
      threshold: how far below zero an eigenvalue is negative, 0 or more; None for
        `tolerance`.

    Returns:
      "n", "max", "min", "trace", "threshold", "negatives" (how many),
      "negative_fraction" (of n, in [0, 1]), "negative_mass"
      (:math:`\sum |\lambda_-| / \sum |\lambda|`, in [0, 1], 0 for no curvature),
      "positives" and "positive_fraction", all Python floats.

    Raises:
      ValueError: if there are none, or one is not finite.

    Examples:
      >>> found = summarise([-1.0, 0.0, 0.0, 3.0])
      >>> found["negatives"], found["negative_fraction"], found["negative_mass"]
      (1.0, 0.25, 0.25)
    """
    values = _checked(eigenvalues)
    limit = tolerance(values, dtype) if threshold is None else threshold
    negative = values < -limit
    positives = int(np.count_nonzero(values > limit))
    size = float(np.sum(np.abs(values)))
    mass = float(np.sum(np.abs(values[negative])))
    return {
        "n": float(values.size),
        "max": float(values.max()),
        "min": float(values.min()),
        "trace": float(values.sum()),
        "threshold": float(limit),
        "negatives": float(np.count_nonzero(negative)),
        "negative_fraction": float(np.mean(negative)),
        "negative_mass": mass / size if size else 0.0,
        "positives": float(positives),
        "positive_fraction": positives / values.size,
    }


@arguments.check(threshold=arguments.optional(arguments.number(0)))
def compare(
    before: Any, after: Any, *, dtype: Any = np.float32, threshold: float | None = None
) -> dict[str, float]:
    """Says how a spectrum changed, as over an update of the masks.

    Both are judged by one threshold, that of the larger, so that an eigenvalue does
    not become negative because another one shrank.

    Args:
      before: eigenvalues before, in any order.
      after: eigenvalues after; there may be more or fewer.
      dtype: as in `summarise`.
      threshold: as in `summarise`.

    Returns:
      "new_negatives" (negative eigenvalues after, less those before; below zero if
      there are fewer), and "max_change", "min_change", "trace_change",
      "negative_fraction_change", "negative_mass_change", after less before, and
      "threshold".

    Raises:
      ValueError: as `summarise`.

    Examples:
      >>> compare([0.0, 2.0], [-1.0, 3.0])["new_negatives"]
      1.0
    """
    if threshold is None:
        threshold = max(tolerance(before, dtype), tolerance(after, dtype))
    was = summarise(before, threshold=threshold)
    now = summarise(after, threshold=threshold)
    changed = ("max", "min", "trace", "negative_fraction", "negative_mass")
    return {
        "new_negatives": now["negatives"] - was["negatives"],
        **{f"{name}_change": now[name] - was[name] for name in changed},
        "threshold": float(threshold),
    }


def _checked(eigenvalues: Any) -> Float[np.ndarray, "n"]:
    values = np.asarray(eigenvalues, np.float64)
    finite = bool(np.all(np.isfinite(values)))
    if values.ndim != 1 or not values.size or not finite:
        raise ValueError(
            f"eigenvalues: got shape {values.shape}, all finite: {finite}; wanted a "
            "list of one or more finite numbers"
        )
    return values
