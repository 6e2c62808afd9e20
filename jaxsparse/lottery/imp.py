"""From one level of iterative pruning to the next: how many weights, and which."""

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
    """How a level prunes.

    Attributes:
      fraction: of the weights left, removed at each level, in (0, 1).
      counting: "exact" keeps round(N (1 - fraction)^L) of the N weights that are not
        ignored; "open_lth" counts and breaks ties as open_lth does.
      scope: "global" for one threshold, "layer" for one a layer.
      layer_fractions: for scope "layer", pairs of a pattern and the fraction of the
        layers it matches; the first that matches counts.
      exclude: patterns of layers that are never pruned.
      score: "magnitude" of the trained weights, or "random", or the name of a score
        that is given.
      min_layer_density: for scope "global", the part of its weights that each layer
        keeps at least, in [0, 1].
    """

    fraction: float = 0.2
    counting: str = "exact"
    scope: str = "global"
    layer_fractions: tuple[tuple[str, float], ...] = ()
    exclude: tuple[str, ...] = ()
    score: str = "magnitude"
    min_layer_density: float = 0.0


def check(rule: PruningRule, masks: Masks, *, levels: int) -> None:
    """Refuses rules that do not fit a network.

    Args:
      rule: how a level prunes.
      masks: the network's dense masks.
      levels: times to prune.

    Raises:
      ValueError: for a pattern that matches no layer, naming it and those there are;
        or if open_lth's rule, ties aside, asks for more weights than there are.
    """
    known = masks_lib.names(masks)
    globs = tuple(glob for glob, _ in rule.layer_fractions)
    masks_lib.check_globs(globs, known, field="config.lottery.layer_fractions")
    masks_lib.check_globs(rule.exclude, known, field="config.lottery.ignored")
    if all(masks_lib.matches(name, rule.exclude) for name in known):
        raise ValueError(
            f"config.lottery.ignored: {rule.exclude} matches every layer of {known}; "
            "wanted at least one layer to prune"
        )
    counts = rule.counting == "exact" and rule.scope == "global" and levels
    if counts and not global_count(masks, levels, rule):
        raise ValueError(
            f"config.lottery.levels: got {levels} at fraction {rule.fraction}, and "
            f"level {levels} keeps none of the {masks_lib.size(masks)} weights; "
            "expected fewer levels or a lower fraction"
        )
    floors = select.floors(masks, rule.min_layer_density, frozen=rule.exclude)
    if floors is not None and rule.counting == "exact":
        needed, kept = sum(jax.tree.leaves(floors)), global_count(masks, levels, rule)
        if levels and needed > kept:
            raise ValueError(
                f"config.lottery.min_layer_density: got {rule.min_layer_density}, for "
                f"which the layers need {needed} weights, where level {levels} keeps "
                f"{kept}; wanted a lower density or fewer levels"
            )
    if rule.counting == "open_lth":
        free = sum(count.total for count in _free(masks, rule))
        ignored = masks_lib.size(masks) - free
        for level in range(1, levels + 1):
            free = _open_lth_left(free, ignored, level, rule)


@arguments.check(
    masks=arguments.masks,
    level=arguments.integer(0),
    rule=arguments.instance(PruningRule),
)
def layer_counts(masks: Masks, level: int, rule: PruningRule) -> Counts:
    """Counts what each layer keeps at a level of layer-wise pruning.

    Args:
      masks: masks of one replicate; only names and shapes are used.
      level: times pruned, from 0.
      rule: how a level prunes.

    Returns:
      Python integers, at least 1 for a layer that has weights; None where the mask is
      None.

    References:
      Frankle and Carbin, The Lottery Ticket Hypothesis, 2019, arXiv:1803.03635,
      figure 2: the output layer is pruned at half the rate of the others.
    """

    def count(name: str, leaf: Array) -> int:
        found = (
            f for glob, f in rule.layer_fractions if masks_lib.matches(name, (glob,))
        )
        fraction = next(found, rule.fraction)
        kept = durations.kept_per_level(leaf.size, fraction=fraction, levels=level)[-1]
        return max(kept, min(1, leaf.size))

    return tree.map_with_names(count, masks)


@arguments.check(
    masks=arguments.masks,
    level=arguments.integer(0),
    rule=arguments.instance(PruningRule),
)
def global_count(masks: Masks, level: int, rule: PruningRule) -> int:
    """Counts what one replicate keeps, over the layers that are not ignored.

    Args:
      masks: concrete masks of the level before, of one replicate.
      level: times pruned when these weights are kept, at least 1.
      rule: how a level prunes.

    Returns:
      The count to select with.

    Raises:
      ValueError: if open_lth's rule, which counts ignored layers in what it removes
        but does not remove from them, asks for more than there is.
    """
    free = _free(masks, rule)
    if rule.counting == "exact":
        total = sum(count.total for count in free)
        kept = durations.kept_per_level(total, fraction=rule.fraction, levels=level)
        return kept[-1]
    now = sum(count.kept for count in free)
    return _open_lth_left(now, masks_lib.num_active(masks) - now, level, rule)


def _free(masks: Masks, rule: PruningRule) -> list[masks_lib.LayerCount]:
    """Counts the layers that may be pruned."""
    layers = masks_lib.layer_counts(masks)
    return [
        c for name, c in layers.items() if not masks_lib.matches(name, rule.exclude)
    ]


def _open_lth_left(free: int, exclude: int, level: int, rule: PruningRule) -> int:
    """Counts what is left of `free` weights when `exclude` ones are counted as well."""
    kept = free + exclude
    gone = kept - durations.open_lth_kept(kept, fraction=rule.fraction)
    if gone > free:
        raise ValueError(
            f"config.lottery.counting: at level {level} open_lth's rule removes {gone} "
            f"weights and only {free} may go; wanted fewer levels, or counting 'exact'"
        )
    return free - gone


def prune(
    params: Params,
    masks: Masks,
    *,
    level: int,
    rule: PruningRule,
    keys: Key[Array, "r"],
    scores: Scores | None = None,
) -> Masks:
    """Chooses the masks of a level for every replicate.

    Args:
      params: trained weights [r ...] the choice is made on.
      masks: masks those were trained with [r ...]; nothing outside them is chosen.
      level: times pruned from now on, at least 1.
      rule: how a level prunes.
      keys: random keys, for score "random".
      scores: scores [r ...], higher is kept; None for those that the rule names.

    Returns:
      Masks [r ...] inside `masks`.

    Raises:
      ValueError: see `global_count`; or if a score that may be selected is NaN or
        infinite, naming the layer and the replicate.

    Warns:
      select.TiedScoresWarning: if more than 1 % of the weights that compete in some
        replicate, and more than 10, have exactly the score at the threshold, see
        `oneshot.prune`.
    """
    one = jax.tree.map(lambda leaf: leaf[0], masks)
    if rule.scope == "layer":
        counts = layer_counts(one, level, rule)
    else:
        each = (
            jax.tree.map(lambda leaf, r=r: leaf[r], masks) for r in range(len(keys))
        )
        counts = [global_count(mask, level, rule) for mask in each]
    counts = jax.tree.map(jnp.int32, counts)
    if rule.scope == "global":
        counts = jnp.stack(counts)
    wide = any(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(scores))
    with jax.enable_x64(True) if wide else contextlib.nullcontext():
        args = (params, masks, counts, jnp.int32(level), keys, scores, rule)
        chosen, not_finite, ties = _prune(*args)
        not_finite, ties = multihost.to_host((not_finite, ties))
    _check_finite(not_finite, level, rule)
    select.warn_of_ties(ties, stacklevel=2)
    return chosen


def _check_finite(not_finite: Any, level: int, rule: PruningRule) -> None:
    """Refuses scores that are not finite, by the number of them [r] in each layer."""
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
    given: Scores | None,
    rule: PruningRule,
) -> tuple[Masks, Any, dict[str, select.Tie]]:
    """Selects by traced counts, so that all levels share one compiled program.

    Returns:
      Masks, how many scores of each layer are not finite, and the ties that the
      thresholds divide; all [r ...]. With ties dropped, none is divided.
    """
    ties = "drop" if rule.counting == "open_lth" else "spread"

    def choose(
        weights: Params,
        within: Masks,
        count: Counts,
        key: Key[Array, ""],
        own: Scores | None,
    ) -> tuple[Masks, Any, dict[str, select.Tie]]:
        if own is not None:
            worth = own
        elif rule.score == "random":
            worth = scores.random(within, key=jax.random.fold_in(key, level))
        else:
            worth = scores.magnitude(weights, within)
        options = {"candidates": within, "frozen": rule.exclude, "ties": ties}
        pooled = rule.scope == "global"
        if pooled:
            least = select.floors(within, rule.min_layer_density, frozen=rule.exclude)
            kept = select.top_k_global_at_least(worth, count, least, **options)
        else:
            kept = select.top_k_per_layer(worth, count, **options)
        not_finite = masks_lib.tree_map(
            lambda mask, score: jnp.sum(mask & ~jnp.isfinite(score)), within, worth
        )
        found = {"candidates": within, "frozen": rule.exclude, "pooled": pooled}
        divided = {} if ties == "drop" else select.count_ties(worth, kept, **found)
        return kept, not_finite, divided

    counts_axis = None if rule.scope == "layer" else 0
    return jax.vmap(choose, in_axes=(0, 0, counts_axis, 0, 0))(
        params, masks, counts, keys, given
    )
