"""Weights at the levels of iterative magnitude pruning: thresholds and histograms.

A level ends with trained weights and their masks; the masks of the next level determine
which of these weights were pruned. All functions run on the host, on numpy arrays.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, PyTree

from jaxsparse import arguments, tree
from jaxsparse.analysis import similarity
from jaxsparse.types import Masks


class PruningThreshold(NamedTuple):
    """Magnitudes on both sides of the cut between pruned and kept weights.

    Attributes:
      largest_pruned: largest magnitude among pruned weights; NaN if none was pruned.
      smallest_kept: smallest magnitude among kept weights; NaN if none was kept.
      pruned: number of pruned weights.
      kept: number of kept weights.
    """

    largest_pruned: float
    smallest_kept: float
    pruned: int
    kept: int


class Histogram(NamedTuple):
    """Histogram of the active weights.

    Attributes:
      counts: number of weights in each bin, [bins].
      edges: edges of the bins, [bins + 1], ascending; 0 is one of them.
    """

    counts: Int[np.ndarray, "b"]
    edges: Float[np.ndarray, "e"]


@arguments.check(
    solution=arguments.instance(similarity.Solution), next_masks=arguments.masks
)
def pruning_threshold(
    solution: similarity.Solution, next_masks: Masks
) -> PruningThreshold:
    """Finds the magnitude at which the weights of a level were pruned.

    After magnitude pruning with one global threshold no kept weight is smaller than a
    pruned one, and the threshold lies between the two magnitudes returned. After
    pruning by layer or by another score the two ranges overlap.

    Args:
      solution: weights at the end of a level, and the masks of this level.
      next_masks: masks of the next level, with the structure of `solution.masks`.

    Returns:
      The magnitudes next to the cut, and the number of weights on each side.

    Raises:
      ValueError: if the masks do not match in structure or shapes, or `next_masks`
        activates weights that are inactive in `solution.masks`; the message names the
        leaf.

    Examples:
      >>> masks = {"w": jnp.array([[True, True, True, False]])}
      >>> weights = {"w": np.array([[0.5, -0.1, 2.0, 9.0]])}
      >>> next_masks = {"w": jnp.array([[True, False, True, False]])}
      >>> found = pruning_threshold(similarity.Solution(weights, masks), next_masks)
      >>> found.largest_pruned, found.smallest_kept, found.pruned, found.kept
      (0.1, 0.5, 1, 2)

    References:
      Maene, Li, Moens. Towards Understanding Iterative Magnitude Pruning: Why Lottery
      Tickets Win. 2021. arXiv:2106.06955: the threshold over levels.
    """
    next_masks = tree.match_structure(
        next_masks, solution.masks, fields=("next_masks", "masks"), same_leaves=True
    )
    weights = _weights(solution.params, solution.masks)
    next_by_name = _arrays(next_masks)
    pruned, kept = [], []
    for name, mask in _arrays(solution.masks).items():
        after = next_by_name[name]
        if np.any(after & ~mask):
            raise ValueError(
                f"next_masks: {name}: expected only weights that are active in the "
                f"masks before, got {int(np.sum(after & ~mask))} others; pass the "
                "masks of two successive levels"
            )
        magnitude = np.abs(weights[name])
        pruned.append(magnitude[mask & ~after])
        kept.append(magnitude[after])
    pruned_values, kept_values = np.concatenate(pruned), np.concatenate(kept)
    return PruningThreshold(
        float(pruned_values.max()) if pruned_values.size else float("nan"),
        float(kept_values.min()) if kept_values.size else float("nan"),
        pruned_values.size,
        kept_values.size,
    )


@arguments.check(
    solution=arguments.instance(similarity.Solution),
    limit=arguments.number(0, above=True),
    bins=arguments.integer(2),
)
def histogram(
    solution: similarity.Solution, *, limit: float, bins: int = 80
) -> Histogram:
    """Computes a histogram of the active weights.

    Args:
      solution: weights and masks; weights outside the masks are not counted.
      limit: half the range: bins of equal width divide [-limit, limit]. Finite and
        above 0. Weights outside are counted in the outermost bins.
      bins: number of bins, even and 2 or more, so that 0 is an edge.

    Returns:
      Counts, whose sum is the number of active weights, and edges.

    Raises:
      ValueError: if `limit` is not a positive finite number, if `bins` is odd or less
        than 2, or if an active weight is not finite.

    Examples:
      >>> masks = {"w": jnp.array([[True, True, False]])}
      >>> weights = {"w": np.array([[-3.0, 0.5, 0.7]])}
      >>> histogram(similarity.Solution(weights, masks), limit=1.0, bins=2).counts
      array([1, 1])

    References:
      Maene, Li, Moens. Towards Understanding Iterative Magnitude Pruning: Why Lottery
      Tickets Win. 2021. arXiv:2106.06955: bimodal where training is stable.
    """
    if not 0 < limit < float("inf"):
        raise ValueError(f"limit: expected a finite number above 0, got {limit}")
    if bins < 2 or bins % 2:
        raise ValueError(f"bins: expected an even number of at least 2, got {bins}")
    weights = _weights(solution.params, solution.masks)
    values = [weights[name][mask] for name, mask in _arrays(solution.masks).items()]
    all_values = np.concatenate([value.astype(np.float64) for value in values])
    if not np.all(np.isfinite(all_values)):
        raise ValueError(
            "solution: expected finite weights, got NaN or infinity for "
            f"{int(np.sum(~np.isfinite(all_values)))}; check whether training diverged"
        )
    # `np.histogram` would drop weights outside the range.
    clipped = np.clip(all_values, -limit, limit)
    edges = np.linspace(-limit, limit, bins + 1)
    return Histogram(np.histogram(clipped, bins=edges)[0], edges)


def _weights(params: PyTree, masks: Masks) -> dict[str, np.ndarray]:
    """Returns the leaves of `params` that have a mask, by name."""
    named = _arrays(params)
    return {name: named[name] for name in tree.names(masks)}


def _arrays(leaves: PyTree) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in tree.named_leaves(leaves).items()}
