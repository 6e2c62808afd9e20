"""Overlap of two masks, counted and expected by chance.

Runs on the host, with exact counts. `similarity` compares the values of the weights.
"""

import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from scipy import signal, stats

from jaxsparse import arguments, tree
from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks


class Overlap(NamedTuple):
    """Measures of overlap of two masks, counted or expected.

    Attributes:
      intersection: number of weights active in both masks.
      hamming: number of weights active in exactly one of the masks.
      overlap: intersection over the smaller number of active weights, in [0, 1]; 1 if
        that number is 0. For masks of equal sparsity this is the fraction of active
        weights that is shared.
      iou: intersection over union (Jaccard index), in [0, 1]; 1 if both masks are
        empty.
    """

    intersection: float
    hamming: float
    overlap: float
    iou: float


class Overlaps(NamedTuple):
    """Overlaps of two trees of masks.

    Attributes:
      layers: overlap of each prunable leaf, by name.
      total: overlap of all leaves taken as one mask; not the mean over layers.
    """

    layers: dict[str, Overlap]
    total: Overlap


class Counts(NamedTuple):
    """Numbers of active weights of two masks of one layer.

    Attributes:
      first: number of active weights in the first mask.
      second: number of active weights in the second mask.
      size: number of weights of the layer, active or not.
    """

    first: int
    second: int
    size: int


def mask_overlap(first: Masks, second: Masks) -> Overlaps:
    """Counts the active weights that two masks share.

    Args:
      first: concrete masks; None where a leaf is not prunable.
      second: concrete masks with the same structure and shapes.

    Returns:
      The overlap of each layer and of all layers together.

    Raises:
      ValueError: if structures or shapes differ (the message names the leaf), or if
        there are no masks or a mask has no elements.

    Examples:
      >>> a = {"w": jnp.array([True, True, True, False])}
      >>> b = {"w": jnp.array([True, True, False, False])}
      >>> mask_overlap(a, b).total
      Overlap(intersection=2.0, hamming=1.0, overlap=1.0, iou=0.6666666666666666)
    """
    counts = _counts(first, second)
    intersections = [
        int(np.count_nonzero(np.asarray(a) & np.asarray(b)))
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    ]
    layers = {
        name: _observed(count, shared)
        for (name, count), shared in zip(counts.items(), intersections, strict=True)
    }
    return Overlaps(layers, _observed(_sum(counts), sum(intersections)))


def chance_overlap(first: Masks, second: Masks) -> Overlaps:
    r"""Computes the expected overlap of random masks with the same layer densities.

    Both masks are drawn independently and uniformly from all masks that have as many
    active weights in each layer as the given ones. With :math:`a` and :math:`b` active
    weights among :math:`n`, the intersection :math:`I` of a layer is hypergeometric
    with mean :math:`ab/n`. This gives the mean of the Hamming distance
    :math:`a + b - 2I` and of the overlap :math:`I / \min(a, b)`, by layer and in total.

    The intersection over union is :math:`I / (a + b - I)`. Its mean is not the ratio of
    the means, so it is computed as the sum over the distribution of :math:`I`; for the
    total, the distribution of the sum over layers is found by convolution. Values of
    :math:`I` whose total probability is below 1e-30 are left out; the remaining error
    is rounding, of about 1e-12.

    Args:
      first: concrete masks, used only for their numbers of active weights; None where a
        leaf is not prunable.
      second: concrete masks with the same structure and shapes, used in the same way.

    Returns:
      The mean of each measure, by layer and in total.

    Raises:
      ValueError: if structures or shapes differ (the message names the leaf), or if
        there are no masks or a mask has no elements.

    Examples:
      >>> mask = {"w": jnp.array([True, False])}
      >>> chance_overlap(mask, mask).total
      Overlap(intersection=0.5, hamming=1.0, overlap=0.5, iou=0.5)
    """
    counts = _counts(first, second)
    distributions = {
        name: intersection_distribution(count) for name, count in counts.items()
    }
    layers = {
        name: _expected(
            count, count.first * count.second / count.size, *distributions[name]
        )
        for name, count in counts.items()
    }
    lowest, probabilities = 0, np.ones(1)
    for minimum, distribution in distributions.values():
        lowest, probabilities = (
            lowest + minimum,
            signal.convolve(probabilities, distribution),
        )
    # The mean is exact; the truncated distribution serves only for the mean of IoU.
    mean = sum(layer.intersection for layer in layers.values())
    return Overlaps(layers, _expected(_sum(counts), mean, lowest, probabilities))


def _counts(first: Masks, second: Masks) -> dict[str, Counts]:
    """Validates two trees of masks and counts the active weights of each layer."""
    arguments.masks("first", first)
    arguments.masks("second", second)
    second = tree.match_structure(
        second, first, fields=("second", "first"), same_leaves=True
    )
    first_counts = masks_lib.layer_counts(first)
    second_counts = masks_lib.layer_counts(second)
    counts = {
        name: Counts(count.num_active, second_counts[name].num_active, count.size)
        for name, count in first_counts.items()
        if count.size
    }
    if len(counts) < len(first_counts) or not first_counts:
        empty = sorted(set(first_counts) - set(counts))
        raise ValueError(
            "first: expected one or more masks, none of them empty, got "
            f"{len(first_counts)}, of which {empty} are empty"
        )
    return counts


def _sum(counts: dict[str, Counts]) -> Counts:
    """Sums the counts over layers."""
    return Counts(*(sum(column) for column in zip(*counts.values(), strict=True)))


def _linear(counts: Counts, shared: float) -> tuple[float, float]:
    """Returns the Hamming distance and the overlap, which are linear in `shared`."""
    smaller = min(counts.first, counts.second)
    hamming = counts.first + counts.second - 2 * shared
    return float(hamming), shared / smaller if smaller else 1.0


def _iou(counts: Counts, shared: Float[np.ndarray, "v"]) -> Float[np.ndarray, "v"]:
    """Returns the intersection over union for each number of shared weights."""
    union = counts.first + counts.second - shared
    return shared / union if counts.first + counts.second else np.ones_like(shared)


def _observed(counts: Counts, shared: int) -> Overlap:
    """Computes all measures from the counted intersection."""
    iou = float(_iou(counts, np.array([float(shared)]))[0])
    return Overlap(float(shared), *_linear(counts, float(shared)), iou)


def _expected(
    counts: Counts, mean: float, lowest: int, probabilities: Float[np.ndarray, "v"]
) -> Overlap:
    """Computes the means of all measures over the distribution of the intersection.

    Args:
      counts: numbers of active weights.
      mean: mean of the intersection.
      lowest: smallest intersection with a probability in `probabilities`.
      probabilities: probabilities of the intersections `lowest`, `lowest + 1`, ...,
        [v].
    """
    values = lowest + np.arange(probabilities.size, dtype=np.float64)
    iou = float(np.sum(probabilities * _iou(counts, values)))
    return Overlap(mean, *_linear(counts, mean), iou)


def intersection_distribution(counts: Counts) -> tuple[int, Float[np.ndarray, "v"]]:
    """Returns the distribution of the intersection of two random masks of a layer.

    Only intersections near the mean are included. By Bernstein's inequality, which
    holds for draws without replacement with the variance of draws with replacement, the
    rest has a probability below 1e-30.

    Args:
      counts: active weights of both masks, and the size of the layer.

    Returns:
      The smallest intersection included, and the probabilities from it upward, [v].
    """
    first, second, size = counts
    # With a standard deviation of s and a reach of t = 12 s + 120, Bernstein's bound
    # 2 exp(-t^2 / (2 s^2 + 2 t / 3)) is below 2 exp(-72), about 1e-31, for every s.
    p = max(first, second) / size
    reach = 12 * math.sqrt(min(first, second) * p * (1 - p)) + 120
    mean = first * second / size
    lowest = max(0, first + second - size, math.floor(mean - reach))
    high = min(first, second, math.ceil(mean + reach))
    values = np.arange(lowest, high + 1)
    probabilities = np.asarray(stats.hypergeom.pmf(values, size, first, second))
    return lowest, probabilities / np.sum(probabilities)
