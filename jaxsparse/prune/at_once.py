"""Pruning with scores that are computed once."""

import dataclasses

import jax

from jaxsparse import (
    arguments,
    fan_axes,
    layer_counts,
    layer_options,
    scores,
    select,
)
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.prune import counts as counts_lib
from jaxsparse.prune import selection
from jaxsparse.types import Masks, Params


@arguments.check(sparsity=arguments.fraction, score=arguments.function)
def prune(
    params: Params,
    sparsity: float,
    *,
    score: selection.Score = scores.magnitude,
    layers: LayerOptions | None = None,
) -> Masks:
    """Prunes a network to a sparsity by keeping the weights with the highest scores.

    Args:
      params: any tree of parameters.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      score: function of parameters and dense masks to a score for each weight; higher
        is better.
      layers: which leaves are pruned, and how the sparsity is divided among them; the
        distribution is "global" by default. With a structure, the counts of layers, or
        with "global" the total count, are rounded to the nearest that it can keep. A
        layer that loses all its weights causes a warning that names it.

    Returns:
      Boolean masks with the nesting of `params`, None at leaves that are not prunable.
      They keep exactly `distributions.count_kept` of the prunable weights, except if a
      structure has counts rounded, with "uniform" and dense layers, or with a function,
      which sets the counts itself. Apply the masks with `masks.apply`, or train with
      `transforms.fixed`.

    Raises:
      ValueError: if the distribution is unknown, the sparsity is out of range, a
        pattern matches no leaf, the dense layers and minimum densities need more
        weights than the sparsity keeps, the count does not fit the structure, or the
        scores are not finite or do not have the shapes of the parameters.
      TypeError: if an argument has a wrong type.

    Warns:
      select.TiedScoresWarning: if more than 1% of the candidates, and more than 10
        weights, have exactly the score at the threshold; with a structure, the weights
        of units whose scores do. Those kept among them are spread evenly over layers
        and positions.
      UserWarning: if a layer keeps no weight.

    Examples:
      >>> ticket = jaxsparse.prune.prune(params, 0.9)
      >>> masks.num_active(ticket), masks.size(ticket)
      (8, 80)
      >>> sparse_params = masks.apply(ticket, params)
      >>> layers = jaxsparse.prune.LayerOptions(distribution="uniform")
      >>> ticket = jaxsparse.prune.prune(params, 0.75, layers=layers)
      >>> [count.num_active for count in masks.layer_counts(ticket).values()]
      [12, 8]
    """
    layers = layer_options.resolve(
        layers, function="prune", distribution="global", unused=("pack_masks",)
    )
    everything = masks_lib.ones(params, prunable=layers.prunable)
    axes, dense = fan_axes.of_tree(params, layers.axes), layers.dense
    structure = select.bind(layers.structure, params, axes=axes, dense=dense)
    layers = dataclasses.replace(layers, axes=axes, structure=structure)
    minimums = counts_lib.floors(everything, layers)
    counts = counts_lib.make(everything, sparsity, layers, minimums)
    if counts_lib.is_pooled(counts):
        [counts] = select.round_totals(structure, everything, [counts], frozen=dense)
    else:
        counts = select.round_counts(structure, everything, counts)
    leaf_scores = selection.compute(score, params, everything)
    masks = selection.keep(leaf_scores, counts, None, minimums, layers)
    # Counting ties needs concrete values. With a structure, units of weights compete,
    # and `count_ties` counts single weights.
    leaves = jax.tree.leaves((leaf_scores, masks))
    known = not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
    if known:
        ties = select.count_ties(
            leaf_scores,
            masks,
            frozen=dense,
            pooled=counts_lib.is_pooled(counts),
            structure=structure,
        )
        select.warn_of_ties(ties)
    layer_counts.warn_if_empty(masks, remedy=selection.EMPTY)
    return masks
