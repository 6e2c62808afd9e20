"""Which weights survive a mask update, and which are dropped."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxsparse import masks as masks_lib
from jaxsparse import scores, select
from jaxsparse.transforms import grow
from jaxsparse.types import Grads, Masks, Params, Scores

# (masks, params, grads, dropped, structure) -> (surviving masks, whether all scores
# were finite); `dropped` maps masks to the number of weights to drop in each layer.
Keep = Callable[..., tuple[Masks, Bool[Array, ""]]]


def keep_by_magnitude(masks: Masks, params: Params, grads: Grads) -> Scores:
    """Scores by magnitude.

    Args:
      masks: the present masks.
      params: parameters, zero outside the masks.
      grads: not used; part of the signature of keep scores.
    """
    del grads
    return scores.magnitude(params, masks)


def make_keep(scores: Callable[[Masks, Params, Grads], Scores]) -> Keep:
    """Makes the function that keeps the weights of highest score in each layer.

    Args:
      scores: called as `scores(masks, params, grads)`; returns the score of each
        weight.

    Returns:
      A function `(masks, params, grads, dropped, structure)` that returns the masks of
      the surviving weights, and whether all scores were finite (boolean scalar). Its
      argument `dropped` maps masks to the number of weights to drop in each layer.
    """

    def keep(
        masks: Masks,
        params: Params,
        grads: Grads,
        dropped: Any,
        structure: select.Structure | None,
    ) -> tuple[Masks, Bool[Array, ""]]:
        keep_counts = grow.subtract(grow.count(masks), dropped(masks))
        weight_scores = scores(masks, params, grads)
        kept = select.top_k_per_layer(
            weight_scores, keep_counts, candidates=masks, structure=structure
        )
        return kept, select.all_finite(weight_scores, masks)

    return keep


def make_keep_by_sign(*, allow_regrow: bool) -> Keep:
    """Makes the function that drops the smallest weights of each sign separately.

    The positive and the negative weights of a layer lose the same fraction. Zero counts
    as positive.

    Args:
      allow_regrow: if False, both signs together drop at most as many weights as can
        be grown, since dropped weights are not available for growth.

    Returns:
      A function `(masks, params, grads, dropped, structure)` that returns the masks of
      the surviving weights, and whether all scores were finite (boolean scalar). Its
      argument `dropped` maps masks to the number of weights to drop in each layer.
    """

    def keep(
        masks: Masks,
        params: Params,
        grads: Grads,
        dropped: Any,
        structure: select.Structure | None,
    ) -> tuple[Masks, Bool[Array, ""]]:
        del grads, structure
        weight_scores = scores.magnitude(params, masks)
        negative = masks_lib.tree_map(lambda mask, w: mask & (w < 0), masks, params)
        positive = jax.tree.map(lambda mask, lower: mask & ~lower, masks, negative)
        drop_negative, drop_positive = dropped(negative), dropped(positive)
        if not allow_regrow:
            growable = grow.subtract(grow.num_inactive(masks), drop_negative)
            drop_positive = jax.tree.map(jnp.minimum, drop_positive, growable)
        sides = ((negative, drop_negative), (positive, drop_positive))
        kept_by_sign = [
            select.top_k_per_layer(
                weight_scores,
                grow.subtract(grow.count(side), num_to_drop),
                candidates=side,
            )
            for side, num_to_drop in sides
        ]
        kept = jax.tree.map(jnp.logical_or, *kept_by_sign)
        return kept, select.all_finite(weight_scores, masks)

    return keep
