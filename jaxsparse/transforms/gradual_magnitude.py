"""Magnitude pruning during training, gradually or at one step."""

from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsparse import arguments, layer_options
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import init_masks as init_masks_lib
from jaxsparse.transforms import magnitude, update_schedules
from jaxsparse.transforms.options import SparsityRamp
from jaxsparse.transforms.protocols import MaskUpdate
from jaxsparse.transforms.sparsify import sparsify
from jaxsparse.types import Masks, Params, Step


@arguments.check(
    sparsity=arguments.fraction,
    ramp=arguments.optional(arguments.instance(SparsityRamp)),
)
def gradual_magnitude(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    begin_step: int,
    end_step: int,
    update_every: int = 100,
    ramp: SparsityRamp | None = None,
    layers: LayerOptions | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Prunes the smallest weights gradually until the target sparsity is reached.

    Masks are nested: a pruned weight never becomes active again. For masks in which it
    may, use `straight_through` with the same schedule.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove by `end_step`, in [0, 1).
      begin_step: step of the first mask update, counted from 0.
      end_step: step of the last mask update, which reaches exactly `sparsity`, whatever
        `update_every` is; equal to `begin_step` to prune once. The mask update takes
        place before the optimizer step with this number. Training for N steps therefore
        reaches `sparsity` only if `end_step` is at most N - 1.
      update_every: steps between mask updates, at least 1.
      ramp: the course of sparsity, by default cubic from 0. Its initial sparsity is at
        most `sparsity`, and its sparsities must not decrease.
      layers: which leaves have masks, and how the sparsity is divided among them; the
        distribution is "uniform" by default.

    Returns:
      The wrapped optimizer. At every step the number of active weights is exactly that
      of the schedule; with a structure, it is rounded to whole units.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = transforms.gradual_magnitude(
      ...     optax.sgd(0.1, 0.9), sparsity=0.95, begin_step=3000, end_step=7000
      ... )
      >>> opt_state = tx.init(params)

    References:
      Zhu, Gupta. To prune, or not to prune: exploring the efficacy of pruning for model
      compression. 2017. arXiv:1710.01878, equation 1.
    """
    update_schedule = update_schedules.make_update_schedule(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=True,
    )
    ramp = ramp or SparsityRamp()
    layers = layer_options.resolve(
        layers, function="gradual_magnitude", distribution="uniform"
    )
    initial_sparsity = ramp.initial_sparsity
    table = update_schedules.gradual_sparsities(
        update_schedule,
        initial=initial_sparsity,
        final=sparsity,
        schedule=ramp.schedule,
    )
    # Masks are nested, so a lower sparsity could not be reached later.
    check_rising([Fraction(str(initial_sparsity)), *table])
    mask_fn = magnitude.make_mask_fn(layers)

    def init_masks(params: Params) -> Masks:
        masks = masks_lib.ones(params, prunable=layers.prunable)
        # Sparsities that the network cannot meet are an error now, not mid-training.
        jax.eval_shape(lambda: mask_fn(masks, params, table, jnp.int32(0)))
        if not initial_sparsity:
            return masks
        first = [Fraction(str(initial_sparsity))]
        return mask_fn(masks, params, first, jnp.int32(0))

    def update_masks(
        masks: Masks, params: Params, grads: Any, *, step: Step, **unused: Any
    ) -> MaskUpdate:
        del grads, unused
        index = update_schedules.update_index(update_schedule, step)
        return MaskUpdate(mask_fn(masks, params, table, index))

    return sparsify(
        inner,
        init_masks_lib.stored(init_masks, layers),
        update_masks=update_masks,
        update_at=update_schedules.due(update_schedule),
    )


@arguments.check(sparsity=arguments.fraction)
def one_shot_magnitude(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    step: int,
    layers: LayerOptions | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Trains dense and prunes the smallest weights once, in the update numbered `step`.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights to remove, in [0, 1).
      step: number of dense optimizer steps before pruning, at least 0.
      layers: which leaves have masks, and how the sparsity is divided among them; the
        distribution is "global" by default.

    Returns:
      The wrapped optimizer.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = one_shot_magnitude(optax.sgd(0.1, 0.9), sparsity=0.9, step=7000)
    """
    step = update_schedules.check_steps(step, field="step")
    layers = layer_options.resolve(
        layers, function="one_shot_magnitude", distribution="global"
    )
    return gradual_magnitude(
        inner, sparsity=sparsity, begin_step=step, end_step=step, layers=layers
    )


def check_rising(table: list[Fraction]) -> None:
    """Checks that sparsities do not decrease.

    Args:
      table: sparsities in the order of the mask updates.

    Raises:
      ValueError: if one is less than the one before it.
    """
    if any(later < earlier for earlier, later in zip(table, table[1:], strict=False)):
        raise ValueError(
            "schedule: expected sparsities that never decrease, got "
            f"{[float(part) for part in table]}; for masks that may grow again, use "
            "transforms.straight_through or transforms.ac_dc"
        )
