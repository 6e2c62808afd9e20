"""Scores of all weights, and masks that keep the weights of highest score."""

from collections.abc import Callable

from jaxsparse import select, tree
from jaxsparse.layer_options import LayerOptions
from jaxsparse.prune.counts import is_pooled
from jaxsparse.types import Counts, Masks, Params, Scores

EMPTY = "pass min_layer_density, a distribution by layer, or a lower sparsity"
Score = Callable[[Params, Masks], Scores]


def compute(score: Score, params: Params, masks: Masks) -> Scores:
    """Computes scores and arranges them in the nesting of the masks.

    Args:
      score: function of parameters and masks to a score for each weight.
      params: the parameters.
      masks: the current masks.

    Raises:
      ValueError: if a leaf is missing, unexpected or has another shape.
    """
    fields = ("score", "the prunable leaves of params")
    return tree.match_structure(
        score(params, masks),
        masks,
        fields=fields,
        same_leaves=True,
        remedy="return one score per weight, and None for leaves that have no mask",
    )


def keep(
    scores: Scores,
    counts: Counts,
    candidates: Masks | None,
    minimums: Counts | None,
    layers: LayerOptions,
) -> Masks:
    """Selects weights over all layers by a single count, or in each layer by its own.

    Args:
      scores: scores with the nesting of the masks.
      counts: a single count or a count for each leaf.
      candidates: masks of the weights that may be kept; None for all.
      minimums: minimum numbers of weights of the layers, with a single count; None for
        no minimum.
      layers: options with a bound structure; `dense` and `structure` are used.
    """
    options = {
        "candidates": candidates,
        "frozen": layers.dense,
        "structure": layers.structure,
    }
    if is_pooled(counts):
        return select.top_k_global_at_least(scores, counts, minimums, **options)
    return select.top_k_per_layer(scores, counts, **options)
