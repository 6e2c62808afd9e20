"""One change of masks in which some weights go and others come, as a wrapper.

The methods of `dynamic` are calls of `exchange` that differ in what they keep and in
what they grow.
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
    """What a network holds above its count until the next change.

    Attributes:
      more: weights of each layer that came on top at the last change.
      held: all weights of each layer after it. A layer of another count holds masks
        that were replaced since, which have no surplus.
    """

    more: Counts
    held: Counts


class MaskUpdateSpec(NamedTuple):
    """When masks change, and how.

    Attributes:
      calendar: when.
      drops: which part of a layer's weights goes, by change; numerator and denominator.
      structure: which weights stand or fall together, or None.
      dense: shell patterns of layers that are whole and take no part.
      axes: which axes of the leaves are inputs and outputs, see `fan_axes`.
      regrow_dropped: whether a weight that goes now may come now.
      restart_dropped: whether it then starts from zero.
    """

    calendar: update_schedules.UpdateSchedule
    drops: list[tuple[int, int]]
    structure: select.Structure | None
    dense: tuple[str, ...]
    axes: fan_axes.Axes
    regrow_dropped: bool
    restart_dropped: bool


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
    regrow_dropped: bool,
    restart_dropped: bool,
    include_end: bool = False,
) -> MaskUpdateSpec:
    """Makes a change of the arguments of a method.

    Raises:
      ValueError: naming the argument.
    """
    calendar = update_schedules.make_update_schedule(
        begin_step=update_every if begin_step is None else begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=include_end,
    )
    drops = update_schedules.drop_fractions(
        calendar, fraction=drop_fraction, schedule=drop_schedule
    )
    return MaskUpdateSpec(
        calendar, drops, structure, dense, axes, regrow_dropped, restart_dropped
    )


def keep_by_magnitude(masks: Masks, params: Params, grads: Grads) -> Scores:
    """Finds the largest weights worth most."""
    del grads
    return scores.magnitude(params, masks)


def random_growth_scores(masks: Masks, grads: Grads, key: Key[Array, ""]) -> Scores:
    """Promises as much of any weight as of any other."""
    del grads
    return scores.random(masks, key=key)


# Masks to those that stay, and whether all scores were finite.
Keep = Callable[..., tuple[Masks, Bool[Array, ""]]]


def make_keep(scores: Callable[[Masks, Params, Grads], Scores]) -> Keep:
    """Makes the function that keeps the weights of most worth."""

    def keep(
        masks: Masks,
        params: Params,
        grads: Grads,
        dropped: Any,
        structure: select.Structure | None,
    ) -> tuple[Masks, Bool[Array, ""]]:
        left = grow.subtract(grow.count(masks), dropped(masks))
        score = scores(masks, params, grads)
        stay = select.top_k_per_layer(
            score, left, candidates=masks, structure=structure
        )
        return stay, select.all_finite(score, masks)

    return keep


def make_keep_by_sign(*, regrow_dropped: bool) -> Keep:
    """Makes the function that keeps the largest of either sign.

    Args:
      regrow_dropped: if not, both signs together drop no more than can be grown.
    """

    def keep(
        masks: Masks,
        params: Params,
        grads: Grads,
        dropped: Any,
        structure: select.Structure | None,
    ) -> tuple[Masks, Bool[Array, ""]]:
        del grads, structure
        score = scores.magnitude(params, masks)
        negative = masks_lib.tree_map(lambda mask, w: mask & (w < 0), masks, params)
        positive = jax.tree.map(lambda mask, less: mask & ~less, masks, negative)
        below, above = dropped(negative), dropped(positive)
        if not regrow_dropped:
            left = grow.subtract(grow.num_inactive(masks), below)
            above = jax.tree.map(jnp.minimum, above, left)
        sides = ((negative, below), (positive, above))
        parts = [
            select.top_k_per_layer(
                score, grow.subtract(grow.count(side), goes), candidates=side
            )
            for side, goes in sides
        ]
        return jax.tree.map(jnp.logical_or, *parts), select.all_finite(score, masks)

    return keep


def drop_and_grow(
    inner: optax.GradientTransformation,
    change: MaskUpdateSpec,
    *,
    keep: Keep,
    grow_score: Callable[[Masks, Grads, Key[Array, ""] | None], Scores],
    init_masks: InitMasks,
    soft_bound: bool = False,
    skip_inner: bool,
    key: Key[Array, ""] | None,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimiser so that at every change some weights go and others come.

    `key` is None for a `grow_score` that draws nothing.
    """
    again = change.regrow_dropped

    def init_memory(params: Params, masks: Masks) -> grow.EverActive:
        memory = grow.init_exploration(params, masks)
        if not soft_bound:
            return memory
        if is_placeholder(params):  # counts are no copies of the weights
            return memory._replace(own=SoftBoundState(0, 0))
        none = jax.tree.map(lambda _: jnp.zeros((), jnp.int32), masks)
        return memory._replace(own=SoftBoundState(none, grow.count(masks)))

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
            change.structure, params, axes=change.axes, dense=change.dense
        )
        ratio = grow.fraction_at(change.drops, change.calendar, step)

        def goes(held: Masks) -> Counts:
            if soft_bound:
                return jax.tree.map(
                    lambda more, before, now: jnp.where(before == now, more, 0),
                    *(*memory.own, grow.count(held)),
                )
            counts = grow.part(held, ratio, structure=structure)
            counts = grow.zero_counts(counts, change.dense)
            return counts if again else grow.at_most_inactive(counts, masks)

        kept, finite = keep(masks, params, grads, goes, structure)
        comes = grow.subtract(grow.count(masks), grow.count(kept))
        if soft_bound:
            comes = grow.part(kept, ratio, structure=structure)
            comes = grow.at_most_inactive(comes, kept if again else masks)
            last = step == change.calendar.end
            comes = jax.tree.map(lambda more: jnp.where(last, 0, more), comes)
        promised = grow_score(
            masks, grads, None if key is None else jax.random.fold_in(key, step)
        )
        new = grow.grow(
            masks, kept, comes, promised, structure=structure, regrow_dropped=again
        )
        finite &= grow.finite_where_grown(promised, kept if again else masks, comes)
        both = (
            grow.dropped_and_regrown(masks, kept, new)
            if change.restart_dropped
            else None
        )
        own = SoftBoundState(comes, grow.count(new)) if soft_bound else None
        seen = grow.record_exploration(memory, masks, new, own=own)
        return MaskUpdate(new, seen, reset=both, zeroed=both, finite=finite)

    return sparsify(
        inner,
        init_masks,
        update_masks=update_masks,
        update_at=lambda step: update_schedules.should_update(change.calendar, step),
        init_memory=init_memory,
        skip_inner=skip_inner,
        key=key,
    )
