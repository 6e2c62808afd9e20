"""How levels of iterative magnitude pruning prune, and how many weights they keep."""

from typing import NamedTuple

import jax
from jaxtyping import Array

from jaxsparse import arguments, durations, select, tree
from jaxsparse import masks as masks_lib
from jaxsparse.types import Counts, Masks


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
        prunable = sum(count.size for count in prunable_counts(masks, rule))
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
    prunable = prunable_counts(masks, rule)
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


def prunable_counts(masks: Masks, rule: PruningRule) -> list[masks_lib.LayerCount]:
    """Returns the counts of the layers that may be pruned.

    Args:
      masks: concrete masks of one replicate.
      rule: how each level prunes; `exclude` is used.
    """
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
