"""What pruning rounds do to weights: where they are cut, and how they lie around it.

A round ends with weights under its masks; the masks of the next say which of these were
pruned. Pure functions of numpy, on the host: they read two trees once.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, PyTree

from jaxsparse import arguments, tree
from jaxsparse.analysis import similarity
from jaxsparse.types import Masks


class PruningThreshold(NamedTuple):
    """Where a round's weights were divided into pruned and kept.

    Attributes:
      largest_pruned: magnitude; NaN if none was pruned.
      smallest_kept: magnitude; NaN if none was kept.
      pruned: how many.
      kept: how many.
    """

    largest_pruned: float
    smallest_kept: float
    pruned: int
    kept: int


class Histogram(NamedTuple):
    """How many weights lie where.

    Attributes:
      counts: of each bin.
      edges: of the bins, one more than there are counts; 0 is one of them.
    """

    counts: Int[np.ndarray, "b"]
    edges: Float[np.ndarray, "e"]


@arguments.check(
    solution=arguments.instance(similarity.Solution), next_masks=arguments.masks
)
def pruning_threshold(
    solution: similarity.Solution, next_masks: Masks
) -> PruningThreshold:
    """Finds the pruning threshold of a round.

    Pruned by magnitude at one global threshold, no kept weight is smaller than a pruned
    one, and the threshold lies between the two numbers. By layer, or by another score,
    they overlap.

    Args:
      solution: the weights a round ended with, and its masks.
      next_masks: masks of the next round, the same nesting.

    Returns:
      The cut.

    Raises:
      ValueError: if masks do not fit each other, or the next round has weights that
        this one has not, naming the leaf.

    Examples:
      >>> masks = {"w": np.array([[True, True, True, False]])}
      >>> weights = {"w": np.array([[0.5, -0.1, 2.0, 9.0]])}
      >>> after = {"w": np.array([[True, False, True, False]])}
      >>> cut(similarity.Solution(weights, masks), after)
      Cut(largest_pruned=0.1, smallest_kept=0.5, pruned=1, kept=2)

    References:
      Maene, Li, Moens. Towards Understanding Iterative Magnitude Pruning: Why Lottery
      Tickets Win. 2021. arXiv:2106.06955: the threshold over rounds.
    """
    next_masks = tree.match_structure(
        next_masks, solution.masks, fields=("following", "masks"), same_leaves=True
    )
    weights = _weights(solution.params, solution.masks)
    chosen = _arrays(next_masks)
    pruned, kept = [], []
    for name, mask in _arrays(solution.masks).items():
        after = chosen[name]
        if np.any(after & ~mask):
            raise ValueError(
                f"following: {name} has {int(np.sum(after & ~mask))} weights that the "
                "round before has not; wanted masks that were pruned from its own"
            )
        size = np.abs(weights[name])
        pruned.append(size[mask & ~after])
        kept.append(size[after])
    gone, left = np.concatenate(pruned), np.concatenate(kept)
    return PruningThreshold(
        float(gone.max()) if gone.size else float("nan"),
        float(left.min()) if left.size else float("nan"),
        gone.size,
        left.size,
    )


@arguments.check(
    solution=arguments.instance(similarity.Solution),
    limit=arguments.number(0, above=True),
    bins=arguments.integer(2),
)
def histogram(
    solution: similarity.Solution, *, limit: float, bins: int = 80
) -> Histogram:
    """Counts the weights that a round has, by their value.

    Args:
      solution: weights and masks; weights outside the masks are not counted.
      limit: bins are of equal width from -limit to limit; above 0. What lies beyond
        is counted in the outermost ones.
      bins: how many, even, so that 0 divides two of them.

    Returns:
      Counts, which add up to the weights of the masks.

    Raises:
      ValueError: if the limit is not a positive number, or bins are odd or fewer than
        2; or a weight is not finite.

    Examples:
      >>> masks = {"w": np.array([[True, True, False]])}
      >>> weights = {"w": np.array([[-3.0, 0.5, 0.7]])}
      >>> histogram(similarity.Solution(weights, masks), limit=1.0, bins=2).counts
      array([1, 1])

    References:
      Maene, Li, Moens. Towards Understanding Iterative Magnitude Pruning: Why Lottery
      Tickets Win. 2021. arXiv:2106.06955: bimodal where training is stable.
    """
    if not 0 < limit < float("inf"):
        raise ValueError(f"limit: got {limit}; wanted a positive number")
    if bins < 2 or bins % 2:
        raise ValueError(f"bins: got {bins}; wanted an even number, 2 or more")
    weights = _weights(solution.params, solution.masks)
    values = [weights[name][mask] for name, mask in _arrays(solution.masks).items()]
    every = np.concatenate([value.astype(np.float64) for value in values])
    if not np.all(np.isfinite(every)):
        raise ValueError(
            f"solution: {int(np.sum(~np.isfinite(every)))} weights are not finite; "
            "did its training diverge?"
        )
    inside = np.clip(every, -limit, limit)
    edges = np.linspace(-limit, limit, bins + 1)
    return Histogram(np.histogram(inside, bins=edges)[0], edges)


def _weights(params: PyTree, masks: Masks) -> dict[str, np.ndarray]:
    """Returns the leaves that have masks, by name."""
    named = _arrays(params)
    return {name: named[name] for name in tree.names(masks)}


def _arrays(leaves: PyTree) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in tree.named_leaves(leaves).items()}
