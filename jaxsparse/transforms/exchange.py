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

from jaxsparse import calendars, fan_axes, scores, select
from jaxsparse import masks as masks_lib
from jaxsparse.transforms import regrowth
from jaxsparse.transforms.engine import is_placeholder, sparsify
from jaxsparse.transforms.protocols import InitMasks, MaskUpdate
from jaxsparse.types import Counts, Grads, Masks, Params, Scores

Schedule = str | Callable[[int], float]


class Surplus(NamedTuple):
    """What a network holds above its count until the next change.

    Attributes:
      more: weights of each layer that came on top at the last change.
      held: all weights of each layer after it. A layer of another count holds masks
        that were replaced since, which have no surplus.
    """

    more: Counts
    held: Counts


class Change(NamedTuple):
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

    calendar: calendars.Calendar
    drops: list[tuple[int, int]]
    structure: select.Structure | None
    dense: tuple[str, ...]
    axes: fan_axes.Axes
    regrow_dropped: bool
    restart_dropped: bool


def make_change(
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
    closes: bool = False,
) -> Change:
    """Makes a change of the arguments of a method.

    Raises:
      ValueError: naming the argument.
    """
    calendar = calendars.make_calendar(
        begin_step=update_every if begin_step is None else begin_step,
        update_every=update_every,
        end_step=end_step,
        closes=closes,
    )
    drops = calendars.drop_fractions(
        calendar, fraction=drop_fraction, schedule=drop_schedule
    )
    return Change(
        calendar, drops, structure, dense, axes, regrow_dropped, restart_dropped
    )


def by_magnitude(masks: Masks, params: Params, grads: Grads) -> Scores:
    """Finds the largest weights worth most."""
    del grads
    return scores.magnitude(params, masks)


def at_random(masks: Masks, grads: Grads, key: Key[Array, ""]) -> Scores:
    """Promises as much of any weight as of any other."""
    del grads
    return scores.random(masks, key=key)


# Masks to those that stay, and whether all scores were finite.
Keep = Callable[..., tuple[Masks, Bool[Array, ""]]]


def make_keep(worth: Callable[[Masks, Params, Grads], Scores]) -> Keep:
    """Makes the function that keeps the weights of most worth."""

    def keep(
        masks: Masks,
        params: Params,
        grads: Grads,
        dropped: Any,
        structure: select.Structure | None,
    ) -> tuple[Masks, Bool[Array, ""]]:
        left = regrowth.subtract(regrowth.count(masks), dropped(masks))
        score = worth(masks, params, grads)
        stay = select.per_layer(score, left, within=masks, structure=structure)
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
            left = regrowth.subtract(regrowth.room(masks), below)
            above = jax.tree.map(jnp.minimum, above, left)
        sides = ((negative, below), (positive, above))
        parts = [
            select.per_layer(
                score, regrowth.subtract(regrowth.count(side), goes), within=side
            )
            for side, goes in sides
        ]
        return jax.tree.map(jnp.logical_or, *parts), select.all_finite(score, masks)

    return keep


def exchange(
    inner: optax.GradientTransformation,
    change: Change,
    *,
    keep: Keep,
    promise: Callable[[Masks, Grads, Key[Array, ""] | None], Scores],
    init_masks: InitMasks,
    soft_bound: bool = False,
    skip_inner: bool,
    key: Key[Array, ""] | None,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimiser so that at every change some weights go and others come.

    `key` is None for a `promise` that draws nothing.
    """
    again = change.regrow_dropped

    def init_memory(params: Params, masks: Masks) -> regrowth.Explored:
        memory = regrowth.remember(params, masks)
        if not soft_bound:
            return memory
        if is_placeholder(params):  # counts are no copies of the weights
            return memory._replace(own=Surplus(0, 0))
        none = jax.tree.map(lambda _: jnp.zeros((), jnp.int32), masks)
        return memory._replace(own=Surplus(none, regrowth.count(masks)))

    def update_masks(
        masks: Masks,
        params: Params,
        grads: Grads,
        *,
        step: Any,
        key: Key[Array, ""] | None,
        memory: regrowth.Explored,
        **unused: Any,
    ) -> MaskUpdate:
        del unused
        structure = select.bind(
            change.structure, params, axes=change.axes, dense=change.dense
        )
        ratio = regrowth.look_up(change.drops, change.calendar, step)

        def goes(held: Masks) -> Counts:
            if soft_bound:
                return jax.tree.map(
                    lambda more, before, now: jnp.where(before == now, more, 0),
                    *(*memory.own, regrowth.count(held)),
                )
            counts = regrowth.part(held, ratio, structure=structure)
            counts = regrowth.except_of(counts, change.dense)
            return counts if again else regrowth.at_most_room(counts, masks)

        kept, finite = keep(masks, params, grads, goes, structure)
        comes = regrowth.subtract(regrowth.count(masks), regrowth.count(kept))
        if soft_bound:
            comes = regrowth.part(kept, ratio, structure=structure)
            comes = regrowth.at_most_room(comes, kept if again else masks)
            last = step == change.calendar.end
            comes = jax.tree.map(lambda more: jnp.where(last, 0, more), comes)
        promised = promise(
            masks, grads, None if key is None else jax.random.fold_in(key, step)
        )
        new = regrowth.grow(
            masks, kept, comes, promised, structure=structure, regrow_dropped=again
        )
        finite &= regrowth.finite_where_grown(promised, kept if again else masks, comes)
        both = regrowth.regrown(masks, kept, new) if change.restart_dropped else None
        own = Surplus(comes, regrowth.count(new)) if soft_bound else None
        seen = regrowth.explored(memory, masks, new, own=own)
        return MaskUpdate(new, seen, reset=both, zeroed=both, finite=finite)

    return sparsify(
        inner,
        init_masks,
        update_masks=update_masks,
        update_at=lambda step: calendars.is_due(change.calendar, step),
        init_memory=init_memory,
        skip_inner=skip_inner,
        key=key,
    )
