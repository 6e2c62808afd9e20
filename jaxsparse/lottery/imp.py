"""Iterative magnitude pruning: which weights the next level keeps.

`pruning_rule` defines how many; its names are available here, too.
"""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from jaxsparse import masks as masks_lib
from jaxsparse import multihost, replicates, scores, select, tree
from jaxsparse.lottery.pruning_rule import (
    PruningRule,
    check,
    global_count,
    layer_counts,
    prunable_counts,
)
from jaxsparse.types import Counts, Masks, Params, Scores

__all__ = ("PruningRule", "check", "global_count", "layer_counts", "prune")


def prune(
    params: Params,
    masks: Masks,
    *,
    level: int,
    rule: PruningRule,
    keys: Key[Array, "r"],
    scores: Scores | None = None,
) -> Masks:
    """Chooses the masks of a level for all replicates.

    Args:
      params: trained weights [r ...] from which scores are computed.
      masks: masks [r ...] with which the weights were trained. Inactive weights stay
        inactive.
      level: level whose masks are chosen, at least 1.
      rule: how each level prunes.
      keys: typed random keys [r], used for the score "random".
      scores: precomputed scores [r ...], the highest are kept; None computes the score
        that the rule names.

    Returns:
      Masks [r ...], subsets of `masks`.

    Raises:
      ValueError: if open_lth's rule asks to remove more weights than can be removed, or
        if the score of an active weight is NaN or infinite; the message names the layer
        and the replicate.

    Warns:
      select.TiedScoresWarning: if the threshold splits a group of equal scores, in some
        replicate, that has more than 10 weights and more than 1 % of the candidates.
        Positions then decide which of them are kept.
    """
    # Only names and shapes of it are used, which all replicates share.
    masks_of_replicates = replicates.split(masks)
    first_masks = masks_of_replicates[0]
    if rule.scope == "layer":
        counts = jax.tree.map(
            lambda count, leaf: select.to_array(count, leaf.size),
            layer_counts(first_masks, level, rule),
            first_masks,
        )
    else:
        # The count of open_lth depends on the previous masks, which differ between
        # replicates.
        total = sum(count.size for count in prunable_counts(first_masks, rule))
        table = [global_count(mask, level, rule) for mask in masks_of_replicates]
        counts = select.to_array(table, total)
    # SynFlow scores are float64, and counts of 2**31 weights or more int64. JAX would
    # silently convert both to 32 bits in the program below.
    leaves = jax.tree.leaves((scores, counts))
    wide = any(leaf.dtype in (jnp.float64, jnp.int64) for leaf in leaves)
    with jax.enable_x64(True) if wide else contextlib.nullcontext():
        args = (params, masks, counts, np.int32(level), keys, scores, rule)
        selected, not_finite, ties = prune_to_counts(*args)
        not_finite, ties = multihost.to_host((not_finite, ties))
    # Checked here, because traced code cannot raise errors that depend on values.
    _check_finite(not_finite, level, rule)
    select.warn_of_ties(ties)
    return selected


def _check_finite(not_finite: Any, level: int, rule: PruningRule) -> None:
    """Raises ValueError if any score of an active weight is not finite.

    Args:
      not_finite: number of such scores in each layer and replicate, a tree of [r].
      level: level whose masks are chosen, for the message.
      rule: how each level prunes. Excluded layers are ignored.
    """
    bad = {
        f"{name}, replicate {replicate}": int(count)
        for name, counts in tree.named_leaves(not_finite).items()
        if not masks_lib.matches(name, rule.exclude)
        for replicate, count in enumerate(counts)
        if count
    }
    if bad:
        raise ValueError(
            f"scores: expected finite numbers at level {level}, got NaN or infinity "
            f"for this many weights: {bad}; look for overflow in the trained weights, "
            f"or in the score {rule.score!r}"
        )


@functools.partial(jax.jit, static_argnums=6)
def prune_to_counts(
    params: Params,
    masks: Masks,
    counts: Counts | Int[Array, "r"],
    level: Int[Array, ""],
    keys: Key[Array, "r"],
    precomputed: Scores | None,
    rule: PruningRule,
) -> tuple[Masks, Any, dict[str, select.Tie]]:
    """Selects with traced counts, so that all levels share one compiled program.

    Args:
      params: trained weights [r ...].
      masks: masks of the previous level [r ...].
      counts: number of weights to keep: for scope "global" one per replicate [r], for
        scope "layer" one scalar per layer.
      level: level whose masks are chosen.
      keys: typed random keys [r].
      precomputed: precomputed scores [r ...], or None.
      rule: how each level prunes; static.

    Returns:
      The masks; the number of scores of active weights in each layer that are not
      finite; and the ties at the thresholds. All have a leading axis [r]. The ties are
      empty if `ties` is "drop", which removes whole groups of equal scores.
    """
    # open_lth keeps weights strictly above its threshold, and so drops all ties.
    ties = "drop" if rule.count_rule == "open_lth" else "spread"

    def choose(
        weights: Params,
        candidates: Masks,
        count: Counts,
        key: Key[Array, ""],
        own_scores: Scores | None,
    ) -> tuple[Masks, Any, dict[str, select.Tie]]:
        if own_scores is not None:
            weight_scores = own_scores
        elif rule.score == "random":
            weight_scores = scores.random(
                candidates, key=jax.random.fold_in(key, level)
            )
        else:
            weight_scores = scores.magnitude(weights, candidates)
        options = {"candidates": candidates, "frozen": rule.exclude, "ties": ties}
        pooled = rule.scope == "global"
        if pooled:
            minimums = select.floors(
                candidates, rule.min_layer_density, frozen=rule.exclude
            )
            kept = select.top_k_global_at_least(
                weight_scores, count, minimums, **options
            )
        else:
            kept = select.top_k_per_layer(weight_scores, count, **options)
        not_finite = masks_lib.tree_map(
            lambda mask, score: jnp.sum(mask & ~jnp.isfinite(score)),
            candidates,
            weight_scores,
        )
        tie_options = {
            "candidates": candidates,
            "frozen": rule.exclude,
            "pooled": pooled,
        }
        ties_at_threshold = (
            {}
            if ties == "drop"
            else select.count_ties(weight_scores, kept, **tie_options)
        )
        return kept, not_finite, ties_at_threshold

    # Layer counts depend on layer sizes only, which all replicates share.
    counts_axis = None if rule.scope == "layer" else 0
    return jax.vmap(choose, in_axes=(0, 0, counts_axis, 0, 0))(
        params, masks, counts, keys, precomputed
    )
