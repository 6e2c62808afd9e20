"""Straight-through gradients: computes with the largest weights and trains all."""

from fractions import Fraction

import optax
from jaxtyping import Array, Bool

from jaxsparse import arguments, layer_options
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import magnitude, update_schedules
from jaxsparse.transforms.latent import latent
from jaxsparse.transforms.options import SparsityRamp
from jaxsparse.types import Masks, Params, Step


@arguments.check(
    sparsity=arguments.fraction,
    ramp=arguments.optional(arguments.instance(SparsityRamp)),
)
def straight_through(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    begin_step: int = 0,
    end_step: int = 0,
    update_every: int = 1,
    ramp: SparsityRamp | None = None,
    layers: LayerOptions | None = None,
    train_all: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Computes with the largest weights and trains all: straight-through gradients.

    Weights outside the masks are zero in the forward pass, and the gradient taken there
    trains their stored values. They may become large enough to enter the masks, so
    masks need not be nested. With `train_all=False`, weights outside the masks keep
    their values instead, and become active again when other weights fall below them.
    This is gradual magnitude pruning without monotone masks.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights that the forward pass does not use, in
        [0, 1).
      begin_step: step at which a gradual schedule begins; before it the sparsity is
        the initial one of `ramp`. By default the final sparsity holds from the first
        step on.
      end_step: step from which on the sparsity is exactly the final one.
      update_every: steps between mask updates, before and after `end_step`; at least 1.
      ramp: the course of sparsity, by default cubic from 0. Sparsities may decrease.
      layers: which leaves have masks, and how the weights of the forward pass are
        divided among them; the distribution is "uniform" by default. The forward pass
        uses all weights of dense layers.
      train_all: whether all weights are trained, or only those in the masks.

    Returns:
      The wrapped optimizer.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    References:
      Bengio, Leonard, Courville. Estimating or Propagating Gradients Through Stochastic
      Neurons for Conditional Computation. 2013. arXiv:1308.3432 (straight-through).
    """
    update_schedule = update_schedules.make_update_schedule(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=True,
    )
    ramp = ramp or SparsityRamp()
    layers = layer_options.resolve(
        layers,
        function="straight_through",
        distribution="uniform",
        unused=("pack_masks",),
    )
    table = update_schedules.gradual_sparsities(
        update_schedule,
        initial=ramp.initial_sparsity,
        final=sparsity,
        schedule=ramp.schedule,
    )
    table = [Fraction(str(ramp.initial_sparsity)), *table]
    select_masks = magnitude.make_mask_fn(layers)

    def mask_fn(params: Params, step: Step) -> tuple[Masks, Masks | None]:
        everything = masks_lib.ones(params, prunable=layers.prunable)
        # Row 0 of the table is the initial sparsity and row k that after k updates.
        index = update_schedules.row_at(update_schedule, step, len(table))
        masks = select_masks(everything, params, table, index)
        return masks, None if train_all else masks

    def refresh_at(step: Step) -> Bool[Array, ""]:
        is_due = (step - begin_step) % update_every == 0
        return is_due | (step == end_step)

    return latent(inner, mask_fn, refresh_at=refresh_at, trains_all=train_all)
