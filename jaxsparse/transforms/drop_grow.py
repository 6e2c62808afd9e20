"""Dynamic sparse training: some weights are dropped and others grown during training.

The number of active weights of each layer stays constant. `sparse_evolution`, `rigl`
and `mest` start from random masks with exact layer counts, which `replace_masks` can
replace, and update the masks on a schedule. They call `drop_and_grow` and differ in
what is dropped and grown, and in whether the optimizer takes its step at a mask update:

    method            drops               grows                the step is
    sparse_evolution  smallest, by sign   at random            taken
    rigl              smallest            largest |gradient|   skipped
    mest              least |w| + c |g|   at random            taken

In-time over-parameterization (ITOP, arXiv:2102.02887) is `sparse_evolution` or `rigl`
with settings that explore more weights: thousands of steps between mask updates, half
of the weights dropped, small batches and long training. `ever_active` measures the
exploration.

A grown weight starts from zero with fresh optimizer state. Adam's first step for such a
weight is large, because Adam's bias correction uses a step count shared by all weights,
which is not reset. The step is about (1 - b1) / sqrt(1 - b2) times the learning rate,
which is 3 times with the usual constants, whatever the gradient.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from jaxsparse import select
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import drop, grow, update_schedules
from jaxsparse.transforms import init_masks as init_masks_lib
from jaxsparse.transforms.fitting import is_placeholder
from jaxsparse.transforms.options import DropGrowOptions
from jaxsparse.transforms.protocols import InitMasks, MaskUpdate
from jaxsparse.transforms.sparsify import sparsify
from jaxsparse.types import Counts, Grads, Masks, Params


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
      layers: the method's options about layers.
      updates: the method's options about mask updates.
    """

    update_schedule: update_schedules.UpdateSchedule
    drop_fractions: list[tuple[int, int]]
    layers: LayerOptions
    updates: DropGrowOptions


def make_update_spec(
    *,
    begin_step: int | None,
    update_every: int,
    end_step: int | None,
    layers: LayerOptions,
    updates: DropGrowOptions,
    include_end: bool = False,
) -> MaskUpdateSpec:
    """Makes a `MaskUpdateSpec` from the arguments of a method.

    Args:
      begin_step: step of the first mask update, counted from 0; `update_every` if None.
      update_every: steps between mask updates, at least 1.
      end_step: mask updates take place before this step, or up to and including it with
        `include_end`; None for no end.
      layers: completed options about layers, see `layer_options.resolve`.
      updates: completed options about mask updates, see `options.resolve`.
      include_end: whether `end_step` itself is the last mask update.

    Returns:
      The specification.

    Raises:
      ValueError: if an argument is out of range; the message names it.
      TypeError: if a number of steps is not an integer; the message names the argument.
    """
    update_schedule = update_schedules.make_update_schedule(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=include_end,
    )
    drop_fractions = update_schedules.drop_fractions(
        update_schedule, fraction=updates.drop_fraction, schedule=updates.drop_schedule
    )
    return MaskUpdateSpec(update_schedule, drop_fractions, layers, updates)


def drop_and_grow(
    inner: optax.GradientTransformation,
    spec: MaskUpdateSpec,
    *,
    keep: drop.Keep,
    grow_score: grow.Growth,
    init_masks: InitMasks,
    soft_bound: bool = False,
    key: Key[Array, ""] | None,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer so that mask updates drop some weights and grow others.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      spec: when and how masks are updated.
      keep: chooses the surviving weights; from `drop.make_keep` or
        `drop.make_keep_by_sign`.
      grow_score: called as `grow_score(masks, grads, key, step)`; in each layer, the
        inactive weights of highest score are grown.
      init_masks: makes the initial masks from the parameters.
      soft_bound: whether to grow before dropping, as in MEST: weights grown at one mask
        update are above the target count until the next one drops as many. The update
        at `spec.update_schedule.end` grows none.
      key: typed random key for `grow_score`, which folds in the step. None for growth
        scores that draw nothing.

    Returns:
      The wrapped optimizer. Its memory is a `grow.EverActive`, with a `SoftBoundState`
      in `own` for `soft_bound`.
    """
    layers, updates = spec.layers, spec.updates
    allow_regrow = updates.allow_regrow

    def init_memory(params: Params, masks: Masks) -> grow.EverActive:
        if not soft_bound:
            return grow.EverActive()
        # Counts are not shaped like parameters, so `optax.tree.map_params` must not
        # find its placeholder in them.
        if is_placeholder(params):
            return grow.EverActive(SoftBoundState(0, 0))
        zeros = jax.tree.map(lambda _: jnp.zeros((), jnp.int32), masks)
        return grow.EverActive(SoftBoundState(zeros, grow.count(masks)))

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
            layers.structure, params, axes=layers.axes, dense=layers.dense
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
            counts = grow.zero_counts(counts, layers.dense)
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
        growth_scores = grow_score(masks, grads, key, step)
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
        own = SoftBoundState(grow_counts, grow.count(new)) if soft_bound else None
        return grow.mask_update(
            *(masks, kept, new),
            memory=memory._replace(own=own),
            zero_regrown=updates.zero_regrown,
            finite=finite,
        )

    return sparsify(
        inner,
        init_masks_lib.stored(init_masks, layers),
        update_masks=update_masks,
        update_at=update_schedules.due(spec.update_schedule),
        init_memory=init_memory,
        skip_update=updates.skip_update,
        key=key,
    )
