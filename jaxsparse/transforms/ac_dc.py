"""AC/DC: training that alternates between dense and sparse phases."""

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
      distribution: "global" for one threshold over all layers; or how the active
        weights are divided among layers: a name in `distributions.NAMES` ("uniform",
        "balanced", "er" or "erk"), or a function of masks and sparsity that returns the
        number of active weights of each layer.
      dense: shell patterns of leaf names, such as ("head/*",). Matching layers stay
        dense: mask updates do not change them, and they need not fit `structure`. Must
        be empty if `distribution` is a function.
      structure: structured sparsity, from `select.n_of_m`, `select.blocks`,
        `select.channels` or `select.fan_in`; None selects weights one by one. With
        distribution "global", it must be `blocks` or `channels`, with units of the same
        size in all layers.
      min_layer_density: minimum density of each layer, in [0, 1], rounded up to whole
        weights or structural units; other layers are pruned more to compensate. Only
        for distribution "global". With 0, as in the papers, a layer may lose all of its
        weights.
      reset_memory: whether to reset the optimizer state of all prunable weights at
        decompression. If False, only that of the weights that become active again is
        reset.
      prunable: which leaves have masks: a function of a leaf's name and the leaf, or
        shell patterns of leaf names, where a pattern that begins with "!" excludes
        leaves. The default selects leaves called kernel, weight, w or embedding that
        have a floating-point dtype and at least two axes.
      axes: which axes of the leaves are inputs and outputs: a layout such as
        `fan_axes.EQUINOX` or "oi...", a mapping from shell patterns to layouts, or a
        `fan_axes.TreeAxes`; None infers the layouts from names and shapes.

    Returns:
      The wrapped optimizer. Masks contain all weights, or exactly the number of weights
      that `sparsity` gives.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Deviations:
      Resetting the momentum at decompression is an option of the authors' code, which
      we know from secondary sources only; the exact setting of the paper is unverified.

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
    mask_fn = magnitude.make_mask_fn(
        distribution=distribution,
        dense=dense,
        structure=structure,
        min_layer_density=min_layer_density,
        axes=axes,
    )

    def init_masks(params: Params) -> Masks:
        masks = masks_lib.ones(params, prunable=prunable)
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
        init_masks,
        update_masks=update_masks,
        update_at=lambda step: update_schedules.should_update(update_schedule, step),
    )
