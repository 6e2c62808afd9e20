"""Training that alternates between all weights and few: AC/DC."""

from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsparse import arguments, fan_axes, select
from jaxsparse import masks as masks_lib
from jaxsparse.transforms import magnitude, update_schedules
from jaxsparse.transforms.init_masks import Distribution, Prunable
from jaxsparse.transforms.protocols import MaskUpdate
from jaxsparse.transforms.sparsify import sparsify
from jaxsparse.types import Masks, Params, Step


@arguments.check(sparsity=arguments.fraction, min_layer_density=arguments.real)
def ac_dc(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    begin_step: int,
    end_step: int,
    update_every: int,
    distribution: Distribution = "global",
    dense: tuple[str, ...] = (),
    structure: select.Structure | None = None,
    min_layer_density: float = 0.0,
    reset_memory: bool = True,
    prunable: Prunable = masks_lib.is_kernel,
    axes: fan_axes.Axes = None,
) -> optax.GradientTransformationExtraArgs:
    """Alternates between compressed and decompressed phases: AC/DC.

    Training is dense up to `begin_step`; then phases of `update_every` updates follow
    each other, compressed to the largest weights and decompressed to all of them
    (those that were out start from zero); from `end_step` on it stays compressed.

    Args:
      inner: any optimiser.
      sparsity: fraction of the prunable weights removed when compressed, in [0, 1).
      begin_step: length of the dense warm-up in updates.
      end_step: where the last compressed phase begins.
      update_every: length of a phase in updates.
      distribution: as in `gradual_magnitude`, and so are the others not named here.
      dense: as above.
      structure: as above.
      min_layer_density: as above.
      reset_memory: whether what the optimiser remembers of all prunable weights starts
        afresh when they are decompressed, or only of those that come back.
      prunable: as above.
      axes: as above.

    Returns:
      The optimiser. Masks hold exactly all weights, or exactly the count of `sparsity`.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Deviations:
      That momentum is reset at decompression is an option of the authors' code, which
      we know from secondary sources only; the paper's exact setting is unverified.

    References:
      Peste, Iofinova, Vladu, Alistarh. AC/DC: Alternating Compressed/DeCompressed
      Training of Deep Neural Networks. 2021. arXiv:2106.12379, algorithm 1.
    """
    calendar = update_schedules.make_update_schedule(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=True,
    )
    table = [Fraction(str(sparsity))]
    choose = magnitude.make_mask_fn(
        distribution=distribution,
        dense=dense,
        structure=structure,
        min_layer_density=min_layer_density,
        axes=axes,
    )

    def init_masks(params: Params) -> Masks:
        masks = masks_lib.ones(params, prunable=prunable)
        jax.eval_shape(lambda: choose(masks, params, table, jnp.int32(0)))
        return masks

    def update_masks(
        masks: Masks, params: Params, grads: Any, *, step: Step, **unused: Any
    ) -> MaskUpdate:
        del grads, unused
        opens = update_schedules.update_index(calendar, step) % 2 == 1
        opens &= step < calendar.end
        few = choose(masks, params, table, jnp.int32(0))
        new = jax.tree.map(lambda mask: mask | opens, few)
        forget = jax.tree.map(lambda mask: jnp.full_like(mask, opens), masks)
        return MaskUpdate(new, reset=forget if reset_memory else None)

    return sparsify(
        inner,
        init_masks,
        update_masks=update_masks,
        update_at=lambda step: update_schedules.should_update(calendar, step),
    )
