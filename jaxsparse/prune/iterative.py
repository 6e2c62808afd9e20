"""Pruning in iterations, with scores that are computed anew before each."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxsparse import arguments, fan_axes, layer_counts, layer_options, select
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.prune import counts as counts_lib
from jaxsparse.prune import selection
from jaxsparse.types import Masks, Params, Scores

SCHEDULES = ("exponential", "linear")


@arguments.check(
    sparsity=arguments.fraction,
    score=arguments.function,
    iterations=arguments.integer(1),
    schedule=arguments.one_of(SCHEDULES),
)
def prune_iteratively(
    params: Params,
    sparsity: float,
    *,
    score: selection.Score,
    iterations: int = 100,
    schedule: str = "exponential",
    regrow: bool = False,
    layers: LayerOptions | None = None,
) -> Masks:
    r"""Prunes in many small iterations and computes the scores anew before each.

    With :math:`T` iterations and the sparsity :math:`s`, iteration :math:`t` keeps the
    fraction :math:`(1 - s)^{t/T}` of the weights (exponential) or :math:`1 - s \, t/T`
    (linear), rounded to whole weights.

    - SynFlow: `score=scores.synflow` with its further arguments bound, and the
      defaults.
    - Iterative SNIP: `score=scores.snip` with its further arguments bound.
    - FORCE: the same as iterative SNIP, with `regrow=True`.

    Args:
      params: any tree of parameters.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      score: function of parameters and the current masks to a score for each weight;
        higher is better. It is traced once and must be pure.
      iterations: number of times that scores are computed, 1 or more; 1 equals `prune`.
      schedule: how the density falls, "exponential" or "linear".
      regrow: whether removed weights may become active again. The scores outside the
        masks are then used, too; the functions in `scores` compute them.
      layers: which leaves are pruned, and how the sparsity of each iteration is divided
        among them; the distribution is "global" by default. `structure` must be None.

    Returns:
      Boolean masks with the nesting of `params`, None at leaves that are not prunable.
      They keep exactly `distributions.count_kept` of the prunable weights, except with
      "uniform" and dense layers, or with a function, which sets the counts itself.

    Raises:
      ValueError: if the distribution or the schedule is unknown, a number is out of
        range, a pattern matches no leaf, the dense layers and minimum densities need
        more weights than the sparsity keeps, or scores do not have the shapes of the
        parameters; or if a score that is used is not finite, naming the layer and the
        iteration.
      TypeError: if an argument has a wrong type.

    Warns:
      select.TiedScoresWarning: if in the last iteration more than 1% of the candidates,
        and more than 10 weights, have exactly the score at the threshold.
      UserWarning: if a layer keeps no weight.

    Examples:
      >>> flow = lambda params, kept: scores.synflow(model.apply, params, kept, (1, 6))
      >>> ticket = prune_iteratively(params, 0.9, score=flow, iterations=5)
      >>> masks.num_active(ticket)
      8

    Deviations:
      If a distribution by layer gives a layer fewer weights at one iteration than at a
      later one because of rounding, its count at the earlier iteration is raised, so
      that no layer grows. No argument restores the original.

    References:
      Tanaka, Kunin, Yamins, Ganguli. Pruning neural networks without any data by
      iteratively conserving synaptic flow. 2020. arXiv:2006.05467, algorithm 1.

      de Jorge, Sanyal, Behl, Torr, Rogez, Dokania. Progressive Skeletonization:
      Trimming more fat from a network at initialization. 2021. arXiv:2006.09081,
      section 4: FORCE, iterative SNIP and the exponential schedule.
    """
    layers = layer_options.resolve(
        layers,
        function="prune_iteratively",
        distribution="global",
        unused=("structure", "pack_masks"),
    )
    everything = masks_lib.tree_map(
        _place_beside, masks_lib.ones(params, prunable=layers.prunable), params
    )
    axes = fan_axes.of_tree(params, layers.axes)
    layers = dataclasses.replace(layers, axes=axes)
    minimums = counts_lib.floors(everything, layers)
    # Built from the last iteration to the first, with counts that never decrease. The
    # last iteration has exactly the count of `prune`.
    plan = [counts_lib.make(everything, sparsity, layers, minimums)]
    for level in reversed(_levels(sparsity, iterations, schedule)):
        counts = counts_lib.make(everything, level, layers, minimums)
        plan.append(jax.tree.map(max, counts, plan[-1]))
    plan.reverse()

    # The counts are read by a traced index, so that all iterations share one compiled
    # program.
    @jax.jit
    def step(
        params: Params, masks: Masks, iteration: Int[Array, ""]
    ) -> tuple[Masks, list[Bool[Array, ""]], dict[str, Any]]:
        counts = counts_lib.at_iteration(masks, plan, iteration, layers.dense)
        leaf_scores = selection.compute(score, params, masks)
        candidates = None if regrow else masks
        considered = everything if regrow else masks
        selected = selection.keep(leaf_scores, counts, candidates, minimums, layers)
        ties = select.count_ties(
            leaf_scores,
            selected,
            candidates=candidates,
            frozen=layers.dense,
            pooled=counts_lib.is_pooled(counts),
        )
        return selected, _finite(leaf_scores, considered), ties

    masks = everything
    for iteration in range(iterations):
        masks, finite, ties = step(params, masks, jnp.int32(iteration))
        # Under `jit`, selection itself cannot raise an error for scores that are not
        # finite, so it is done here.
        _check_finite(masks, finite, f"iteration {iteration + 1} of {iterations}")
    select.warn_of_ties(ties)
    layer_counts.warn_if_empty(masks, remedy=selection.EMPTY)
    return masks


def _place_beside(mask: Bool[Array, "..."], leaf: Any) -> Bool[Array, "..."]:
    """Puts a first mask where its parameters are, as all later masks are.

    Otherwise the second iteration would compile a program of its own.

    Args:
      mask: the mask.
      leaf: its parameters; if they are on no device in particular, nothing happens.
    """
    fixed = isinstance(leaf, jax.Array) and leaf.committed
    return jax.device_put(mask, leaf.sharding) if fixed else mask


def _check_finite(masks: Masks, finite: list[Bool[Array, ""]], when: str) -> None:
    """Raises ValueError if scores that are used are not finite.

    Args:
      masks: masks, for the names of the layers.
      finite: for each layer whether all its scores are finite.
      when: the iteration, for the message.
    """
    bad = [
        name
        for name, is_finite in zip(masks_lib.names(masks), finite, strict=True)
        if not is_finite
    ]
    if bad:
        raise ValueError(
            f"score: expected finite numbers, got NaN or infinity in {bad} at {when}; "
            "look for overflow in the loss or the network"
        )


def _levels(sparsity: float, iterations: int, schedule: str) -> list[float]:
    """Lists the sparsities of all iterations but the last, whose sparsity is given."""
    parts = [t / iterations for t in range(1, iterations)]
    if schedule == "linear":
        return [sparsity * part for part in parts]
    return [1 - (1 - sparsity) ** part for part in parts]


def _finite(scores: Scores, considered: Masks) -> list[Bool[Array, ""]]:
    """Computes per layer whether its scores are finite where `considered` is True."""
    finite = masks_lib.tree_map(
        lambda mask, leaf: jnp.all(jnp.isfinite(leaf) | ~mask), considered, scores
    )
    return jax.tree.leaves(finite)
