"""Overlap of masks: what two share, and what they would share by chance.

Runs on the host, in exact counts. For the weights inside the masks see `similarity`.
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
    """What two masks share, counted or expected.

    Attributes:
      intersection: weights that both keep.
      hamming: weights that exactly one of them keeps.
      overlap: intersection over the smaller of the two counts kept, in [0, 1]; 1 if
        that is 0. For masks of equal sparsity, the fraction of kept weights shared.
      iou: intersection over union, the Jaccard index, in [0, 1]; 1 if both are empty.
    """

    intersection: float
    hamming: float
    overlap: float
    iou: float


class Overlaps(NamedTuple):
    """Overlaps of two trees of masks.

    Attributes:
      layers: of each prunable leaf, by name.
      total: of all of them as one mask; no mean of the layers'.
    """

    layers: dict[str, Overlap]
    total: Overlap


class Counts(NamedTuple):
    """Sizes of two masks of one layer.

    Attributes:
      first: weights the first mask keeps.
      second: weights the second keeps.
      size: weights there are.
    """

    first: int
    second: int
    size: int


def mask_overlap(first: Masks, second: Masks) -> Overlaps:
    """Counts what two masks share.

    Args:
      first: concrete masks.
      second: concrete masks of the same nesting and shapes.

    Returns:
      By layer and in total.

    Raises:
      ValueError: if nestings or shapes differ, naming the leaf.

    Examples:
      >>> a = {"w": jnp.array([True, True, True, False])}
      >>> b = {"w": jnp.array([True, True, False, False])}
      >>> mask_overlap(a, b).total
      Overlap(intersection=2.0, hamming=1.0, overlap=1.0, iou=0.6666666666666666)
    """
    counts = _counts(first, second)
    both = [
        int(np.count_nonzero(np.asarray(a) & np.asarray(b)))
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    ]
    layers = {
        name: _observed(count, shared)
        for (name, count), shared in zip(counts.items(), both, strict=True)
    }
    return Overlaps(layers, _observed(_sum(counts), sum(both)))


def chance_overlap(first: Masks, second: Masks) -> Overlaps:
    r"""Computes what two masks would share on average if drawn at random.

    Both masks are drawn independently and uniformly among those that keep in every
    layer as many weights as the given ones. With :math:`a` and :math:`b` kept of
    :math:`n`, the intersection :math:`I` of a layer is hypergeometric with mean
    :math:`ab/n`, which gives the mean of the Hamming distance :math:`a + b - 2I` and of
    the overlap :math:`I / \min(a, b)`, by layer and in total.

    The intersection over union is :math:`I / (a + b - I)`, whose mean is not the ratio
    of means. Returned is its mean, the sum over the distribution of :math:`I`; in total
    that of the sum of the layers' intersections, by convolution. Values of :math:`I` of
    a probability below 1e-30 together are left out, so what remains is rounding, of
    about 1e-12.

    Args:
      first: concrete masks, of which only the counts are used.
      second: as `first`, same nesting and shapes.

    Returns:
      The mean of each quantity, by layer and in total.

    Raises:
      ValueError: as `mask_overlap`.

    Examples:
      >>> mask = {"w": jnp.array([True, False])}
      >>> chance_overlap(mask, mask).total
      Overlap(intersection=0.5, hamming=1.0, overlap=0.5, iou=0.5)
    """
    counts = _counts(first, second)
    laws = {name: _law(count) for name, count in counts.items()}
    layers = {
        name: _expected(count, count.first * count.second / count.size, *laws[name])
        for name, count in counts.items()
    }
    low, chances = 0, np.ones(1)
    for least, law in laws.values():
        low, chances = low + least, signal.convolve(chances, law)
    mean = sum(layer.intersection for layer in layers.values())
    return Overlaps(layers, _expected(_sum(counts), mean, low, chances))


def _counts(first: Masks, second: Masks) -> dict[str, Counts]:
    """Counts what each mask keeps, by layer."""
    arguments.masks("first", first)
    arguments.masks("second", second)
    second = tree.match_structure(
        second, first, fields=("second", "first"), same_leaves=True
    )
    ours, theirs = masks_lib.layer_counts(first), masks_lib.layer_counts(second)
    counts = {
        name: Counts(count.kept, theirs[name].kept, count.total)
        for name, count in ours.items()
        if count.total
    }
    if len(counts) < len(ours) or not ours:
        empty = sorted(set(ours) - set(counts))
        raise ValueError(
            f"first: got {len(ours)} masks, of which {empty} have no entries; wanted "
            "one or more, all with entries"
        )
    return counts


def _sum(counts: dict[str, Counts]) -> Counts:
    """Counts all layers together."""
    return Counts(*(sum(column) for column in zip(*counts.values(), strict=True)))


def _linear(counts: Counts, shared: float) -> tuple[float, float]:
    """Returns the Hamming distance and the overlap, linear in what is shared."""
    smaller = min(counts.first, counts.second)
    apart = counts.first + counts.second - 2 * shared
    return float(apart), shared / smaller if smaller else 1.0


def _iou(counts: Counts, shared: Float[np.ndarray, "v"]) -> Float[np.ndarray, "v"]:
    """Returns intersection over union for each number of shared weights."""
    union = counts.first + counts.second - shared
    return shared / union if counts.first + counts.second else np.ones_like(shared)


def _observed(counts: Counts, shared: int) -> Overlap:
    """Describes what is shared."""
    iou = float(_iou(counts, np.array([float(shared)]))[0])
    return Overlap(float(shared), *_linear(counts, float(shared)), iou)


def _expected(
    counts: Counts, mean: float, low: int, chances: Float[np.ndarray, "v"]
) -> Overlap:
    """Averages over how many may be shared: `low` and up, each with its chance."""
    values = low + np.arange(chances.size, dtype=np.float64)
    iou = float(np.sum(chances * _iou(counts, values)))
    return Overlap(mean, *_linear(counts, mean), iou)


def _law(counts: Counts) -> tuple[int, Float[np.ndarray, "v"]]:
    """Returns how many weights may be shared at least, and the chances from there on.

    By Bernstein's inequality, which holds for draws without replacement with the
    variance of draws with it, less than 1e-30 lies farther from the mean than this.
    """
    first, second, size = counts
    p = max(first, second) / size
    reach = 12 * math.sqrt(min(first, second) * p * (1 - p)) + 120
    mean = first * second / size
    low = max(0, first + second - size, math.floor(mean - reach))
    high = min(first, second, math.ceil(mean + reach))
    values = np.arange(low, high + 1)
    chances = np.asarray(stats.hypergeom.pmf(values, size, first, second))
    return low, chances / np.sum(chances)
