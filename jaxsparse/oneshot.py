"""Pruning any pytree of parameters to a given sparsity, in one call.

The pieces are those of every other method: `scores` for what a weight is worth,
`distributions` for how many each layer keeps, `select` for which.
"""

from collections.abc import Callable
from typing import Any

from jaxsparse import distributions, scores, select
from jaxsparse import masks as masks_lib
from jaxsparse.config import nearest
from jaxsparse.types import Masks, Params, Scores

PER_LAYER = {
    "uniform": distributions.uniform,
    "erdos_renyi": distributions.erdos_renyi,
    "erdos_renyi_kernel": distributions.erdos_renyi_kernel,
}
DISTRIBUTIONS = ("global", *PER_LAYER)


def prune(
    params: Params,
    sparsity: float,
    *,
    distribution: str = "global",
    score: Callable[[Params, Masks], Scores] = scores.magnitude,
    prunable: Callable[[str, Any], bool] = masks_lib.is_kernel,
) -> Masks:
    """Chooses the masks that keep the best weights.

    Args:
      params: any pytree of parameters.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      distribution: "global" for one threshold over all layers, or how the sparsity is
        divided among layers: "uniform", "erdos_renyi", "erdos_renyi_kernel".
      score: called with parameters and dense masks; higher is better.
      prunable: see `masks.dense`.

    Returns:
      Masks that keep exactly `distributions.count_kept` of the prunable weights; give
      them to `masks.apply`, or to `transforms.fixed` to train on.

    Raises:
      ValueError: for an unknown distribution or a sparsity out of range.

    Examples:
      >>> ticket = prune(params, 0.9)
      >>> sparse_params = masks.apply(ticket, params)
    """
    if distribution not in DISTRIBUTIONS:
        raise ValueError(
            f"distribution: unknown {distribution!r}; did you mean "
            f"{nearest(distribution, list(DISTRIBUTIONS))}?"
        )
    dense = masks_lib.dense(params, prunable=prunable)
    worth = score(params, dense)
    if distribution == "global":
        count = distributions.count_kept(masks_lib.total(dense), sparsity)
        return select.globally(worth, count)
    return select.per_layer(worth, PER_LAYER[distribution](dense, sparsity))
