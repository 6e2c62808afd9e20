"""GraNet: gradual magnitude pruning with regrowth by gradient."""

import dataclasses
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from jaxsparse import arguments, layer_options, scores, select
from jaxsparse.layer_options import Distribution, LayerOptions
from jaxsparse.transforms import grow, magnitude, options, update_schedules
from jaxsparse.transforms import init_masks as init_masks_lib
from jaxsparse.transforms.gradual_magnitude import check_rising
from jaxsparse.transforms.options import DropGrowOptions, Ramp
from jaxsparse.transforms.protocols import MaskUpdate
from jaxsparse.transforms.sparsify import sparsify
from jaxsparse.types import Grads, Masks, Params, RandomKey, Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraNetOptions(DropGrowOptions):
    """How GraNet prunes, and regrows after pruning.

    By default, `drop_fraction` is 0.5 and `drop_schedule` "cosine", which decays to 0
    at `stop_step`. `allow_regrow` must be True, and `skip_update` False or None.

    `DropGrowOptions` explains the options that are not listed here.

    Attributes:
      initial_sparsity: sparsity of the random initial masks, in [0, 1), at most the
        final sparsity; 0 gives the paper's dense-to-sparse training.
      schedule: the course of sparsity, as in `SparsityRamp`. Sparsities must not
        decrease.
      pruned_by: how pruning compares weights: "global" for one threshold over all
        layers; or how the active weights are divided among layers, as a name or a
        function like `LayerOptions.distribution`.
      stop_step: step of the last regrowth, at least `end_step`; `end_step` if None.

    Raises:
      ValueError: if a value is out of range.
      TypeError: if a value has a wrong type.
    """

    initial_sparsity: float = 0.5
    schedule: Ramp = "cubic"
    pruned_by: Distribution = "global"
    stop_step: int | None = None

    def __post_init__(self) -> None:
        """Checks the options."""
        super().__post_init__()
        arguments.check_fields(
            self,
            initial_sparsity=arguments.fraction,
            schedule=update_schedules.check_sparsity_schedule,
            pruned_by=arguments.name_or_function,
            stop_step=arguments.optional(_check_step),
        )


def _check_step(name: str, value: Any) -> None:
    """Checks that a value is a step."""
    update_schedules.check_steps(value, field=name)


@arguments.check(
    sparsity=arguments.fraction,
    key=arguments.optional(arguments.key),
)
def granet(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    end_step: int,
    begin_step: int = 0,
    update_every: int = 100,
    layers: LayerOptions | None = None,
    updates: DropGrowOptions | GraNetOptions | None = None,
    key: RandomKey | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Prunes gradually and regrows weights by gradient: GraNet.

    A mask update first prunes by magnitude to the scheduled sparsity. Then, in each
    layer, it drops the smallest of the remaining weights and grows as many of those
    with the largest gradient.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove by `end_step`, in [0, 1).
      end_step: step of the mask update that reaches exactly `sparsity`.
      begin_step: step of the first mask update, counted from 0.
      update_every: steps between mask updates, at least 1.
      layers: which leaves have masks, and how the active weights of the initial masks
        are divided among them; the distribution is "erk" by default. The minimum
        density is that of pruning, and requires `pruned_by` "global" in `updates`.
        Dense layers are neither pruned nor regrown. `structure` must be None.
      updates: the course of sparsity, and how mask updates prune and regrow; a
        `DropGrowOptions` or a `GraNetOptions`.
      key: random key that the initial masks are drawn with, typed or raw key data
        (uint32); `jax.random.key(0)` if None.

    Returns:
      The wrapped optimizer. At every step the total number of active weights is exactly
      that of the schedule.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> updates = transforms.GraNetOptions(initial_sparsity=0.0, stop_step=9000)
      >>> tx = granet(optax.sgd(0.1), sparsity=0.9, end_step=7000, updates=updates)

    References:
      Liu, Chen, Chen, Atashgahi, Yin, Kou, Shen, Pechenizkiy, Wang, Mocanu. Sparse
      Training via Boosting Pruning Plasticity with Neuroregeneration. 2021.
      arXiv:2106.10404, algorithm 1.
    """
    update_schedule = update_schedules.make_update_schedule(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=True,
    )
    layers = layer_options.resolve(
        layers, function="granet", distribution="erk", unused=("structure",)
    )
    updates = options.resolve(
        updates,
        GraNetOptions,
        function="granet",
        drop_fraction=0.5,
        drop_schedule="cosine",
        skip_update=False,
    )
    options.check_required(
        updates, function="granet", allow_regrow=True, skip_update=False
    )
    table = update_schedules.gradual_sparsities(
        update_schedule,
        initial=updates.initial_sparsity,
        final=sparsity,
        schedule=updates.schedule,
    )
    # Regrowth keeps the number of active weights, so a lower sparsity could not be
    # reached later.
    check_rising([Fraction(str(updates.initial_sparsity)), *table])
    last_regrowth = update_schedule.end
    if updates.stop_step is not None:
        last_regrowth = update_schedules.check_steps(
            updates.stop_step, field="stop_step"
        )
    if last_regrowth < end_step:
        raise ValueError(
            f"stop_step: expected at least end_step={end_step}, got {last_regrowth}; "
            "choose a later one, or None for that step"
        )
    # At least 1: the cosine divides by the end.
    regrow_schedule = update_schedule._replace(end=max(last_regrowth, 1))
    drops = update_schedules.drop_fractions(
        regrow_schedule, fraction=updates.drop_fraction, schedule=updates.drop_schedule
    )
    mask_fn = magnitude.make_mask_fn(
        dataclasses.replace(layers, distribution=updates.pruned_by)
    )
    draw_masks = init_masks_lib.random(
        sparsity=updates.initial_sparsity, layers=layers, key=key
    )

    def init_masks(params: Params) -> Masks:
        # Sparsities that the network cannot meet are an error now, not mid-training.
        masks = draw_masks(params)
        jax.eval_shape(lambda: mask_fn(masks, params, table, jnp.int32(0)))
        return masks

    def update_masks(
        masks: Masks,
        params: Params,
        grads: Grads,
        *,
        step: Step,
        memory: grow.EverActive,
        **unused: Any,
    ) -> MaskUpdate:
        del unused
        index = update_schedules.update_index(update_schedule, step)
        # After `end_step` the sparsity stays, while regrowth may go on to `stop_step`.
        pruned = mask_fn(masks, params, table, jnp.minimum(index, len(table) - 1))
        drop_counts = grow.part(pruned, grow.fraction_at(drops, regrow_schedule, step))
        drop_counts = grow.zero_counts(drop_counts, layers.dense)
        keep_counts = grow.subtract(grow.count(pruned), drop_counts)
        weight_scores = scores.magnitude(params, masks)
        kept = select.top_k_per_layer(weight_scores, keep_counts, candidates=pruned)
        growth_scores = grow.gradient_magnitude(masks, grads)
        # All weights outside `kept` may grow, including those pruned or dropped just
        # now.
        new = grow.grow(pruned, kept, drop_counts, growth_scores)
        # Magnitudes need no check here: `sparsify` checks the weights.
        finite = grow.finite_where_grown(growth_scores, kept, drop_counts)
        return grow.mask_update(
            *(masks, kept, new),
            memory=memory,
            zero_regrown=updates.zero_regrown,
            finite=finite,
        )

    def update_at(step: Step) -> Bool[Array, ""]:
        # Pruning ends at `end_step`, regrowth at `stop_step`.
        return update_schedules.should_update(
            update_schedule, step
        ) | update_schedules.should_update(regrow_schedule, step)

    return sparsify(
        inner,
        init_masks_lib.stored(init_masks, layers),
        update_masks=update_masks,
        update_at=update_at,
        init_memory=lambda params, masks: grow.EverActive(),
    )
