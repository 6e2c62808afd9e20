"""Lottery pools: tickets of neighboring sparsities, interpolated to a better one.

The tickets of iterative magnitude pruning at similar sparsities often lie in one basin.
Their interpolation, pruned again, can be more accurate than each of them, and is as
sparse as the one it starts from. Nothing is trained.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from jaxsparse import arguments, select
from jaxsparse import masks as masks_lib
from jaxsparse.analysis.mode_connectivity import interpolate
from jaxsparse.analysis.similarity import Solution
from jaxsparse.types import Masks, Params

RATIOS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


class Pool(NamedTuple):
    """A ticket that others were interpolated into.

    Attributes:
      solution: its parameters, zero outside the masks, and its masks.
      score: its score.
      chosen: tickets that were accepted, in this order: index and ratio of each.
    """

    solution: Solution
    score: float
    chosen: tuple[tuple[int, float], ...]


@arguments.check(start=arguments.integer(0), evaluate=arguments.function)
def lottery_pool(
    solutions: Sequence[Solution],
    start: int,
    evaluate: Callable[[Params, Masks], float],
    *,
    ratios: Sequence[float] = RATIOS,
    search: int | None = None,
) -> Pool:
    r"""Interpolates other tickets into one, accepting each only if the score rises.

    All other tickets are tried in the order of their distance in levels, at equal
    distance the denser one first. A ticket :math:`\theta_i` is interpolated with the
    pool so far, :math:`(1 - \alpha)\, \theta + \alpha\, \theta_i`, for each ratio
    :math:`\alpha`; each time, the weights of smallest magnitude over all layers are
    pruned, so that as many stay as in the first ticket. The ratio of the highest score
    is accepted if its score is above that of the pool.

    Args:
      solutions: trained tickets of one run, in the order of their levels: parameters of
        any pytree, and masks with None where a leaf is not prunable. Pruned weights may
        have any values.
      start: index of the ticket whose sparsity the result has.
      evaluate: returns the score of parameters, which are zero outside the masks, and
        masks; higher is better. It should be measured on examples that are neither
        trained nor tested on; with BatchNorm, after `soups.batch_statistics`.
      ratios: the ratios that are tried, in (0, 1).
      search: number of other tickets that are tried; None tries all.

    Returns:
      The pool. Masks have as many weights as those of `solutions[start]`. Parameters
      that are not prunable are interpolated too.

    Raises:
      ValueError: if there is no such ticket, `ratios` is empty or one of them is not in
        (0, 1), `search` is below 0, or a score or weight is not finite.
      TypeError: if an argument has a wrong type.

    Examples:
      >>> def ticket(*weights):
      ...     weights = jnp.array(weights)
      ...     return Solution({"w": weights}, {"w": weights != 0})
      >>> tickets = [ticket(1.0, 3.0, 0.2), ticket(2.0, 0.0, 0.3)]
      >>> best = jnp.array([1.5, 1.0, 0.0])
      >>> near = lambda params, masks: -float(jnp.abs(params["w"] - best).sum())
      >>> pool = lottery_pool(tickets, 1, near, ratios=(0.25, 0.5))
      >>> pool.solution.params["w"].tolist(), pool.chosen
      ([1.75, 0.75, 0.0], ((0, 0.25),))

    Deviations:
      The authors compare validation accuracies with the test accuracy of the first
      ticket; here one score decides everything. By default their code tries two other
      tickets, here all.

    References:
      Yin, Liu, Fang, Huang, Menkovski, Pechenizkiy. Lottery Pools: Winning More by
      Interpolating Tickets without Increasing Training or Inference Cost. 2022.
      arXiv:2208.10842; the order of the tickets and the pruning after each
      interpolation are from the authors' code.
    """
    ratios = tuple(ratios)
    _check(solutions, start, ratios, search)
    count = masks_lib.num_active(solutions[start].masks)
    masks = solutions[start].masks
    params = masks_lib.apply(masks, solutions[start].params)
    pool = Pool(Solution(params, masks), _score(evaluate, params, masks), ())
    for index in _by_distance(start, len(solutions))[:search]:
        other = masks_lib.apply(solutions[index].masks, solutions[index].params)
        tried = []
        for ratio in ratios:
            between = interpolate(pool.solution.params, other, ratio)
            found = _pruned(between, masks, count)
            tried.append((_score(evaluate, *found), ratio, found))
        score, ratio, found = max(tried, key=lambda one: one[0])
        if score > pool.score:
            pool = Pool(found, score, (*pool.chosen, (index, ratio)))
    return pool


def _check(
    solutions: Sequence[Solution],
    start: int,
    ratios: Sequence[float],
    search: int | None,
) -> None:
    """Checks the arguments of `lottery_pool`."""
    if start >= len(solutions):
        raise ValueError(
            f"start: expected the index of one of {len(solutions)} solutions, got "
            f"{start}; pass the tickets of all levels, from the dense network on"
        )
    if not ratios or not all(0 < ratio < 1 for ratio in ratios):
        raise ValueError(
            f"ratios: expected numbers between 0 and 1, got {tuple(ratios)}; 0 is the "
            "pool itself, and 1 the other ticket"
        )
    if search is not None and search < 0:
        raise ValueError(f"search: expected None or 0 or more, got {search}")


def _score(
    evaluate: Callable[[Params, Masks], float], params: Params, masks: Masks
) -> float:
    """Returns the score of a ticket, which must be finite to be compared."""
    found = float(evaluate(params, masks))
    if not math.isfinite(found):
        raise ValueError(
            f"evaluate: expected a finite score, got {found}; return a low number for "
            "a network that can't be used"
        )
    return found


def _by_distance(start: int, count: int) -> list[int]:
    """Lists the other indices by distance; at equal distance the smaller first."""
    others = [index for index in range(count) if index != start]
    return sorted(others, key=lambda index: (abs(index - start), index))


def _pruned(params: Params, masks: Masks, count: int) -> Solution:
    """Prunes the weights of smallest magnitude over all layers, down to a count."""
    sizes = masks_lib.tree_map(lambda mask, leaf: jnp.abs(leaf), masks, params)
    kept = select.top_k_global(sizes, count)
    return Solution(masks_lib.apply(kept, params), kept)
