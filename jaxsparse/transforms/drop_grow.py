"""Mask updates that drop some weights and grow others, as an optimizer wrapper.

The methods of `dynamic` call `drop_and_grow` with different drop criteria and growth
scores.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Key

from jaxsparse import fan_axes, scores, select
from jaxsparse import masks as masks_lib
from jaxsparse.transforms import grow, update_schedules
from jaxsparse.transforms.protocols import InitMasks, MaskUpdate
from jaxsparse.transforms.sparsify import is_placeholder, sparsify
from jaxsparse.types import Counts, Grads, Masks, Params, Scores

Schedule = str | Callable[[int], float]


class SoftBoundState(NamedTuple):
    """Weights above the target count until the next mask update, for MEST's soft bound.

    Attributes:
      more: number of weights per layer that the last mask update grew beyond the target
        count; int32.
      held: number of active weights per layer after that update; int32. If the current
        count of a layer differs, its masks were replaced since, and no weights are
        above the target count.
    """

    # Checkpoints store and hash these names, so another name would make the states of
    # earlier runs unreadable.
    more: Counts
    held: Counts


class MaskUpdateSpec(NamedTuple):
    """When and how masks are updated.

    Attributes:
      update_schedule: the steps of the mask updates.
      drop_fractions: fraction of each layer's active weights to drop at each mask
        update, as numerator and denominator; a single pair if it is constant.
      structure: structured sparsity, or None for single weights.
      dense: shell patterns of leaf names; matching layers stay dense.
      axes: which axes of the leaves are inputs and outputs, in any form that
        `fan_axes.of_tree` accepts; None to infer them.
      allow_regrow: whether a weight dropped in a mask update may be grown again in
        the same update.
      zero_regrown: whether such a weight starts from zero with fresh optimizer
        state.
    """

    update_schedule: update_schedules.UpdateSchedule
    drop_fractions: list[tuple[int, int]]
    structure: select.Structure | None
    dense: tuple[str, ...]
    axes: fan_axes.Axes
    allow_regrow: bool
    zero_regrown: bool


def make_update_spec(
    *,
    begin_step: int | None,
    update_every: int,
    end_step: int | None,
    drop_fraction: float,
    drop_schedule: Schedule,
    structure: select.Structure | None,
    dense: tuple[str, ...],
    axes: fan_axes.Axes = None,
    allow_regrow: bool,
    zero_regrown: bool,
    include_end: bool = False,
) -> MaskUpdateSpec:
    """Makes a `MaskUpdateSpec` from the arguments of a method.

    Args:
      begin_step: step of the first mask update, counted from 0; `update_every` if None.
      update_every: steps between mask updates, at least 1.
      end_step: mask updates take place before this step, or up to and including it with
        `include_end`; None for no end.
      drop_fraction: fraction of each layer's active weights that a mask update drops,
        in [0, 1]; the count is rounded down.
      drop_schedule: how `drop_fraction` changes over training: "constant"; "cosine",
        which decays to 0 at `end_step`; or a function of the step, such as a learning
        rate schedule, whose value relative to its largest value multiplies
        `drop_fraction`. All but "constant" need `end_step`.
      structure: structured sparsity, from `select.n_of_m`, `select.blocks`,
        `select.channels` or `select.fan_in`; None selects weights one by one.
      dense: shell patterns of leaf names; matching layers stay dense.
      axes: which axes of the leaves are inputs and outputs, in any form that
        `fan_axes.of_tree` accepts; None to infer them.
      allow_regrow: whether a weight dropped in a mask update may be grown again in
        the same update.
      zero_regrown: whether a weight dropped and regrown in the same update starts
        from zero with fresh optimizer state, as other grown weights do. If False, it
        keeps its value and its optimizer state.
      include_end: whether `end_step` itself is the last mask update.

    Returns:
      The specification.

    Raises:
      ValueError: if an argument is out of range; the message names it.
      TypeError: if a number of steps is not an integer; the message names the argument.
    """
    update_schedule = update_schedules.make_update_schedule(
        begin_step=update_every if begin_step is None else begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=include_end,
    )
    drop_fractions = update_schedules.drop_fractions(
        update_schedule, fraction=drop_fraction, schedule=drop_schedule
    )
    return MaskUpdateSpec(
        update_schedule,
        drop_fractions,
        structure,
        dense,
        axes,
        allow_regrow,
        zero_regrown,
    )


def keep_by_magnitude(masks: Masks, params: Params, grads: Grads) -> Scores:
    """Scores by magnitude.

    Args:
      masks: the present masks.
      params: parameters, zero outside the masks.
      grads: not used; part of the signature of keep scores.
    """
    del grads
    return scores.magnitude(params, masks)


def random_growth_scores(masks: Masks, grads: Grads, key: Key[Array, ""]) -> Scores:
    """Uniform random growth scores.

    Args:
      masks: the present masks; only names and shapes are used.
      grads: not used; part of the signature of growth scores.
      key: random key of this mask update.
    """
    del grads
    return scores.random(masks, key=key)


# (masks, params, grads, dropped, structure) -> (surviving masks, whether all scores
# were finite); `dropped` maps masks to the number of weights to drop in each layer.
Keep = Callable[..., tuple[Masks, Bool[Array, ""]]]


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


def drop_and_grow(
    inner: optax.GradientTransformation,
    spec: MaskUpdateSpec,
    *,
    keep: Keep,
    grow_score: Callable[[Masks, Grads, Key[Array, ""] | None], Scores],
    init_masks: InitMasks,
    soft_bound: bool = False,
    skip_update: bool,
    key: Key[Array, ""] | None,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that mask updates drop some weights and grow others.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      spec: when and how masks are updated.
      keep: chooses the surviving weights; from `make_keep` or `make_keep_by_sign`.
      grow_score: called as `grow_score(masks, grads, key)`; in each layer, the inactive
        weights of highest score are grown. Its key is None if `key` is.
      init_masks: makes the initial masks from the parameters.
      soft_bound: whether to grow before dropping, as in MEST: weights grown at one mask
        update are above the target count until the next one drops as many. The update
        at `spec.update_schedule.end` grows none.
      skip_update: whether to skip the step of `inner` at mask updates.
      key: typed random key for `grow_score`; the step is folded in. None for growth
        scores that draw nothing.

    Returns:
      The wrapped optimizer. Its memory is a `grow.EverActive`, with a `SoftBoundState`
      in `own` for `soft_bound`.
    """
    allow_regrow = spec.allow_regrow

    def init_memory(params: Params, masks: Masks) -> grow.EverActive:
        memory = grow.init_exploration(params, masks)
        if not soft_bound:
            return memory
        # Counts are not shaped like parameters, so `optax.tree.map_params` must not
        # find its placeholder in them.
        if is_placeholder(params):
            return memory._replace(own=SoftBoundState(0, 0))
        zeros = jax.tree.map(lambda _: jnp.zeros((), jnp.int32), masks)
        return memory._replace(own=SoftBoundState(zeros, grow.count(masks)))

    def update_masks(
        masks: Masks,
        params: Params,
        grads: Grads,
        *,
        step: Any,
        key: Key[Array, ""] | None,
        memory: grow.EverActive,
        **unused: Any,
    ) -> MaskUpdate:
        del unused
        structure = select.bind(
            spec.structure, params, axes=spec.axes, dense=spec.dense
        )
        drop_fraction = grow.fraction_at(
            spec.drop_fractions, spec.update_schedule, step
        )

        def num_to_drop(active: Masks) -> Counts:
            if soft_bound:
                # Drop what the last update grew. If the count differs, the masks were
                # replaced since, and nothing is above the target count.
                return jax.tree.map(
                    lambda grown, before, now: jnp.where(before == now, grown, 0),
                    *(*memory.own, grow.count(active)),
                )
            counts = grow.part(active, drop_fraction, structure=structure)
            counts = grow.zero_counts(counts, spec.dense)
            # Without regrowth, only weights that were inactive before can be grown, and
            # dropping more than that would lower the density.
            return counts if allow_regrow else grow.at_most_inactive(counts, masks)

        kept, finite = keep(masks, params, grads, num_to_drop, structure)
        # Counted from the masks: only `keep` decides how many weights are dropped.
        grow_counts = grow.subtract(grow.count(masks), grow.count(kept))
        if soft_bound:
            grow_counts = grow.part(kept, drop_fraction, structure=structure)
            grow_counts = grow.at_most_inactive(
                grow_counts, kept if allow_regrow else masks
            )
            # The last update only drops, so training ends at the target density.
            last = step == spec.update_schedule.end
            grow_counts = jax.tree.map(
                lambda count: jnp.where(last, 0, count), grow_counts
            )
        growth_scores = grow_score(
            masks, grads, None if key is None else jax.random.fold_in(key, step)
        )
        new = grow.grow(
            masks,
            kept,
            grow_counts,
            growth_scores,
            structure=structure,
            allow_regrow=allow_regrow,
        )
        finite &= grow.finite_where_grown(
            growth_scores, kept if allow_regrow else masks, grow_counts
        )
        regrown = (
            grow.dropped_and_regrown(masks, kept, new) if spec.zero_regrown else None
        )
        own = SoftBoundState(grow_counts, grow.count(new)) if soft_bound else None
        memory_after = grow.record_exploration(memory, masks, new, own=own)
        return MaskUpdate(
            new, memory_after, reset=regrown, zeroed=regrown, finite=finite
        )

    return sparsify(
        inner,
        init_masks,
        update_masks=update_masks,
        update_at=lambda step: update_schedules.should_update(
            spec.update_schedule, step
        ),
        init_memory=init_memory,
        skip_update=skip_update,
        key=key,
    )
