"""Weight-sparse training: full steps, after which each tensor keeps its largest."""

from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import optax

from jaxsparse import arguments, layer_options
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import magnitude, update_schedules
from jaxsparse.transforms.options import SparsityRamp
from jaxsparse.transforms.project import project
from jaxsparse.types import Params, Step


def every_weight(name: str, leaf: Any) -> bool:
    """Returns whether a leaf consists of floating-point numbers, such as a bias.

    Args:
      name: name of the leaf, which does not matter.
      leaf: the leaf.
    """
    del name
    return jnp.issubdtype(leaf.dtype, jnp.floating)


@arguments.check(
    sparsity=arguments.fraction,
    ramp=arguments.optional(arguments.instance(SparsityRamp)),
)
def weight_sparse(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    end_step: int,
    begin_step: int = 0,
    update_every: int = 1,
    ramp: SparsityRamp | None = None,
    layers: LayerOptions | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Takes full steps and then keeps the largest weights: weight-sparse training.

    After every step of the optimizer all but the largest weights of each tensor are set
    to zero: also of embeddings, biases and normalization parameters. How many are kept
    decreases during the first part of training. Gradients and optimizer state are
    dense, so that a weight becomes nonzero again when its step makes it large enough.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation except
        `optax.lookahead`.
      sparsity: fraction of the weights that are zero from `end_step` on, in [0, 1).
      end_step: number of updates after which the sparsity is the final one.
      begin_step: number of updates after which it begins to increase.
      update_every: steps between increases of the sparsity, at least 1. The largest
        weights are kept after every step in any case.
      ramp: the course of sparsity, by default linear from 0.
      layers: which leaves are sparse, and how the sparsity is divided among them. By
        default all leaves of floating-point numbers are, and each has the same
        sparsity ("uniform").

    Returns:
      The wrapped optimizer. If fewer weights than were to be kept are nonzero, as in a
      bias before its first step, the masks have fewer.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = transforms.weight_sparse(
      ...     optax.chain(optax.clip(1.0), optax.adamw(1e-2, weight_decay=0.1)),
      ...     sparsity=0.999,
      ...     end_step=50_000,
      ... )

    Deviations:
      Clipping, weight decay and the larger learning rates of sparser networks are the
      caller's. The authors' training code is not public; whatever else it keeps from
      becoming zero, such as a minimum of weights for each neuron, is not included.

    References:
      Gao, Rajaram, Coxon, Govande, Baker, Mossing. Weight-sparse transformers have
      interpretable circuits. 2025. arXiv:2511.13653, section 2 and appendix A.2.
    """
    schedule = update_schedules.make_update_schedule(
        begin_step=begin_step,
        update_every=update_every,
        end_step=end_step,
        include_end=True,
    )
    ramp = ramp or SparsityRamp(schedule="linear")
    layers = layers or LayerOptions(prunable=every_weight)
    layers = layer_options.resolve(
        layers,
        function="weight_sparse",
        distribution="uniform",
        unused=("pack_masks",),
    )
    table = update_schedules.gradual_sparsities(
        schedule,
        initial=ramp.initial_sparsity,
        final=sparsity,
        schedule=ramp.schedule,
    )
    # Row k of the table is the sparsity after k increases.
    table = [Fraction(str(ramp.initial_sparsity)), *table]
    select_masks = magnitude.make_mask_fn(layers)

    def keep_largest(params: Params, step: Step) -> Params:
        everything = masks_lib.ones(params, prunable=layers.prunable)
        index = update_schedules.row_at(schedule, step, len(table))
        kept = select_masks(everything, params, table, index)
        return masks_lib.apply(kept, params)

    return project(inner, keep_largest, prunable=layers.prunable)
