"""Iterative magnitude pruning: how many weights, and which, the next level keeps."""

import contextlib
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from jaxsparse import arguments, durations, multihost, scores, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.types import Counts, Masks, Params, Scores


class PruningRule(NamedTuple):
    """How each level prunes.

    Attributes:
      fraction: fraction of the remaining weights that each level removes, in (0, 1).
      count_rule: how the number of weights is rounded. "exact" keeps
        round(N (1 - fraction)^L) at level L, where N is the number of weights that are
        not excluded; "open_lth" counts and breaks ties as the open_lth code does.
      scope: "global" uses one threshold for all layers, "layer" one per layer.
      layer_fractions: for scope "layer", pairs of a shell pattern and the fraction
        removed in the layers whose names match it; the first match counts, and
        `fraction` applies to layers without a match.
      exclude: shell patterns of layer names that are never pruned.
      score: "magnitude" of the trained weights; "random"; or the name of a score that
        the caller computes and passes to `prune`.
      min_layer_density: for scope "global", minimum fraction of its weights that each
        layer keeps, in [0, 1].
    """

    fraction: float = 0.2
    count_rule: str = "exact"
    scope: str = "global"
    layer_fractions: tuple[tuple[str, float], ...] = ()
    exclude: tuple[str, ...] = ()
    score: str = "magnitude"
    min_layer_density: float = 0.0


def check(rule: PruningRule, masks: Masks, *, levels: int) -> None:
    """Checks that a pruning rule fits a network.

    Args:
      rule: how each level prunes.
      masks: dense masks of one replicate of the network.
      levels: number of levels to prune, from 0.

    Raises:
      ValueError: if a pattern matches no layer (the message lists the layers), all
        layers are excluded, or the last level keeps no weights or fewer than
        `min_layer_density` requires. Also if open_lth's rule, without ties, removes
        more weights at a level than the layers that are not excluded have.
    """
    known = masks_lib.names(masks)
    globs = tuple(glob for glob, _ in rule.layer_fractions)
    masks_lib.check_globs(globs, known, field="config.lottery.layer_fractions")
    masks_lib.check_globs(rule.exclude, known, field="config.lottery.exclude")
    if all(masks_lib.matches(name, rule.exclude) for name in known):
        raise ValueError(
            "config.lottery.exclude: expected patterns that leave at least one layer "
            f"to prune, got {rule.exclude}, which match all of {known}"
        )
    counts = rule.count_rule == "exact" and rule.scope == "global" and levels
    if counts and not global_count(masks, levels, rule):
        raise ValueError(
            f"config.lottery.levels: expected a last level that keeps at least 1 of "
            f"{masks_lib.size(masks)} weights, got {levels} levels at fraction "
            f"{rule.fraction}; use fewer levels or a lower fraction"
        )
    floors = select.floors(masks, rule.min_layer_density, frozen=rule.exclude)
    if floors is not None and rule.count_rule == "exact":
        needed, kept = sum(jax.tree.leaves(floors)), global_count(masks, levels, rule)
        if levels and needed > kept:
            raise ValueError(
                "config.lottery.min_layer_density: expected minimums of at most "
                f"{kept} weights, which level {levels} keeps, got "
                f"{rule.min_layer_density}, which requires {needed}; use a lower "
                "density or fewer levels"
            )
    # Simulates all levels, because the number that open_lth removes depends on the
    # number that the level before left. Raises inside `_open_lth_count`.
    if rule.count_rule == "open_lth":
        prunable = sum(count.size for count in _prunable_counts(masks, rule))
        num_excluded = masks_lib.size(masks) - prunable
        for level in range(1, levels + 1):
            prunable = _open_lth_count(prunable, num_excluded, level, rule)


@arguments.check(
    masks=arguments.masks,
    level=arguments.integer(0),
    rule=arguments.instance(PruningRule),
)
def layer_counts(masks: Masks, level: int, rule: PruningRule) -> Counts:
    """Returns how many weights each layer keeps under layer-wise pruning.

    Args:
      masks: masks of one replicate; only names and shapes are used.
      level: level of iterative magnitude pruning, from 0.
      rule: how each level prunes; `fraction` and `layer_fractions` are used.

    Returns:
      A tree of Python integers, at least 1 for a layer that is not empty; None where
      the mask is None.

    References:
      Frankle and Carbin, The Lottery Ticket Hypothesis, 2019, arXiv:1803.03635, figure
      2: the output layer is pruned at half the rate of the others.
    """

    def count(name: str, leaf: Array) -> int:
        fractions = (
            f for glob, f in rule.layer_fractions if masks_lib.matches(name, (glob,))
        )
        fraction = next(fractions, rule.fraction)
        kept = durations.kept_per_level(leaf.size, fraction=fraction, levels=level)[-1]
        # A layer without active weights would disconnect the network.
        return max(kept, min(1, leaf.size))

    return tree.map_with_names(count, masks)


@arguments.check(
    masks=arguments.masks,
    level=arguments.integer(0),
    rule=arguments.instance(PruningRule),
)
def global_count(masks: Masks, level: int, rule: PruningRule) -> int:
    """Returns how many weights one replicate keeps in layers that are not excluded.

    Args:
      masks: concrete masks of the previous level, of one replicate.
      level: level whose masks are to be chosen, at least 1.
      rule: how each level prunes.

    Returns:
      The number of weights to select.

    Raises:
      ValueError: if open_lth's rule asks to remove more weights than can be removed. It
        takes its fraction of all weights, including those of excluded layers, but
        removes them from the other layers only.
    """
    prunable = _prunable_counts(masks, rule)
    # Counted from the dense network and not from the previous level, so that rounding
    # errors do not accumulate.
    if rule.count_rule == "exact":
        total = sum(count.size for count in prunable)
        kept = durations.kept_per_level(total, fraction=rule.fraction, levels=level)
        return kept[-1]
    num_prunable = sum(count.num_active for count in prunable)
    return _open_lth_count(
        num_prunable, masks_lib.num_active(masks) - num_prunable, level, rule
    )


def _prunable_counts(masks: Masks, rule: PruningRule) -> list[masks_lib.LayerCount]:
    """Returns the counts of the layers that may be pruned."""
    layers = masks_lib.layer_counts(masks)
    return [
        c for name, c in layers.items() if not masks_lib.matches(name, rule.exclude)
    ]


def _open_lth_count(
    prunable: int, num_excluded: int, level: int, rule: PruningRule
) -> int:
    """Returns how many weights open_lth keeps in the layers that may be pruned.

    Args:
      prunable: number of active weights in layers that may be pruned.
      num_excluded: number of active weights in excluded layers. They count toward the
        number to remove, but are not removed.
      level: level of iterative magnitude pruning, for the error message.
      rule: how each level prunes.

    Raises:
      ValueError: if more weights are to be removed than `prunable`.
    """
    kept = prunable + num_excluded
    removed = kept - durations.open_lth_kept(kept, fraction=rule.fraction)
    if removed > prunable:
        raise ValueError(
            f"config.lottery.count_rule: expected at most {prunable} weights to "
            f"remove, those of layers that are not excluded, got {removed} at level "
            f"{level} by open_lth's rule; train fewer levels, or use count_rule 'exact'"
        )
    return prunable - removed


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
    first_masks = jax.tree.map(lambda leaf: leaf[0], masks)
    if rule.scope == "layer":
        counts = jax.tree.map(
            lambda count, leaf: select.to_array(count, leaf.size),
            layer_counts(first_masks, level, rule),
            first_masks,
        )
    else:
        # The count of open_lth depends on the previous masks, which differ between
        # replicates.
        masks_of_replicates = (
            jax.tree.map(lambda leaf, r=r: leaf[r], masks) for r in range(len(keys))
        )
        total = sum(count.size for count in _prunable_counts(first_masks, rule))
        table = [global_count(mask, level, rule) for mask in masks_of_replicates]
        counts = select.to_array(table, total)
    # SynFlow scores are float64, and counts of 2**31 weights or more int64. JAX would
    # silently convert both to 32 bits in the program below.
    leaves = jax.tree.leaves((scores, counts))
    wide = any(leaf.dtype in (jnp.float64, jnp.int64) for leaf in leaves)
    with jax.enable_x64(True) if wide else contextlib.nullcontext():
        args = (params, masks, counts, jnp.int32(level), keys, scores, rule)
        selected, not_finite, ties = _prune(*args)
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
def _prune(
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
