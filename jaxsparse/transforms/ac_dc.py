"""AC/DC: training that alternates between dense and sparse phases."""

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
from jaxsparse.transforms.protocols import MaskUpdate
from jaxsparse.transforms.sparsify import sparsify
from jaxsparse.types import Masks, Params, Step


@arguments.check(sparsity=arguments.fraction)
def ac_dc(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    begin_step: int,
    end_step: int,
    update_every: int,
    layers: LayerOptions | None = None,
    reset_memory: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Alternates between compressed and decompressed phases: AC/DC.

    Training is dense until `begin_step`. Then compressed (sparse) and decompressed
    (dense) phases of `update_every` steps alternate. A compressed phase keeps the
    largest weights; at its end all weights become active again, and those that were
    pruned start from zero. From `end_step` on, training stays compressed.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights removed in compressed phases, in
        [0, 1).
      begin_step: step at which the first compressed phase begins, which is the number
        of dense warm-up steps.
      end_step: step at which the last compressed phase begins, at least `begin_step`.
      update_every: steps in a phase, at least 1.
      layers: which leaves have masks, and how the sparsity is divided among them; the
        distribution is "global" by default.
      reset_memory: whether to reset the optimizer state of all prunable weights at
        decompression. If False, only that of the weights that become active again is
        reset.

    Returns:
      The wrapped optimizer. Masks contain all weights, or exactly the number of weights
      that `sparsity` gives.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Deviations:
      At decompression the authors' code (IST-DASLab/ACDC on GitHub) sets the momentum
      of all parameters to zero, by an option that its scripts set. Here leaves without
      masks, such as those of BatchNorm, keep theirs.

    References:
      Peste, Iofinova, Vladu, Alistarh. AC/DC: Alternating Compressed/DeCompressed
      Training of Deep Neural Networks. 2021. arXiv:2106.12379, algorithm 1.
    """
    update_schedule = update_schedules.make_update_schedule(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=True,
    )
    table = [Fraction(str(sparsity))]
    layers = layer_options.resolve(layers, function="ac_dc", distribution="global")
    mask_fn = magnitude.make_mask_fn(layers)

    def init_masks(params: Params) -> Masks:
        masks = masks_lib.ones(params, prunable=layers.prunable)
        # A sparsity that the network cannot meet is an error now, not mid-training.
        jax.eval_shape(lambda: mask_fn(masks, params, table, jnp.int32(0)))
        return masks

    def update_masks(
        masks: Masks, params: Params, grads: Any, *, step: Step, **unused: Any
    ) -> MaskUpdate:
        del grads, unused
        # Updates alternate: even ones compress, odd ones decompress, and the last one
        # compresses whatever its number.
        decompress = update_schedules.update_index(update_schedule, step) % 2 == 1
        decompress &= step < update_schedule.end
        # Computed at decompression too, where `decompress` overrides it.
        sparse_masks = mask_fn(masks, params, table, jnp.int32(0))
        new = jax.tree.map(lambda mask: mask | decompress, sparse_masks)
        # All False at compression, when no weight becomes active.
        resets = jax.tree.map(lambda mask: jnp.full_like(mask, decompress), masks)
        return MaskUpdate(new, reset=resets if reset_memory else None)

    return sparsify(
        inner,
        init_masks_lib.stored(init_masks, layers),
        update_masks=update_masks,
        update_at=update_schedules.due(update_schedule),
    )
