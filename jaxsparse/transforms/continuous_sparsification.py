"""Continuous sparsification: weights have trained soft masks, which become hard."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxsparse import arguments, layer_options
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import update_schedules
from jaxsparse.transforms.parts import Parts, Reparameterization
from jaxsparse.transforms.self_sparse import by_layer, self_sparse
from jaxsparse.types import Step


@arguments.check(
    mask_logit=arguments.number(-80),  # below about -88, the scale is infinite
    mask_penalty=arguments.number(0),
    final_temperature=arguments.number(1),
)
def continuous_sparsification(
    inner: optax.GradientTransformation,
    *,
    end_step: int,
    mask_logit: float = -0.01,
    mask_penalty: float = 1e-8,
    final_temperature: float = 200.0,
    layers: LayerOptions | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Trains soft masks that harden during training: continuous sparsification.

    Weights are :math:`w \, \sigma(\beta_t s) / \sigma(s_0)` with a trained s for each
    weight, and :math:`\beta_t = \beta_T^{t/T}` increases exponentially from 1. From
    step T on, :math:`\sigma` is replaced by 1 for s above 0 and by 0 otherwise. The
    penalty :math:`\lambda \sum \sigma(\beta_t s) / \sigma(s_0)` draws weights to zero.

    All weights are active until `end_step`, and from then on those with s above 0. How
    many these are follows from the penalty and the initial s.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation except
        `optax.lookahead`. It trains w and s.
      end_step: number of updates T after which the masks are hard, at least 1.
      mask_logit: initial value of s, finite and at least -80; the lower, the sparser.
      mask_penalty: the coefficient lambda, finite and at least 0.
      final_temperature: the value of beta at `end_step`, finite and at least 1.
      layers: which leaves have masks, and which of them are dense. All other options
        must have their defaults.

    Returns:
      The wrapped optimizer. Compute with `forward_params`.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = transforms.continuous_sparsification(
      ...     optax.sgd(0.1, momentum=0.9), end_step=7000, mask_logit=-0.03
      ... )

    Deviations:
      One round; the authors' later rounds, which rewind w and keep negative s, are not
      included. Beta increases every step, not every epoch. Weight decay within `inner`
      acts on s too, unless it is masked there; the authors' does not.

    References:
      Savarese, Silva, Maire. Winning the Lottery with Continuous Sparsification. 2020.
      arXiv:1912.04427, section 3; scaling and default values are those of the
      authors' code.
    """
    end_step = update_schedules.check_steps(end_step, field="end_step", minimum=1)
    layers = layer_options.resolve(
        layers,
        function="continuous_sparsification",
        distribution=None,
        unused=layer_options.ALL_BUT_LEAVES,
    )
    scale = 1 / jax.nn.sigmoid(jnp.float32(mask_logit))

    def soft_mask(logit: Array, step: Step) -> Array:
        progress = jnp.minimum(step / end_step, 1)
        temperature = final_temperature**progress
        soft = scale * jax.nn.sigmoid(temperature * logit)
        hard = scale * (logit > 0)
        return jnp.where(step >= end_step, hard, soft).astype(logit.dtype)

    def make(name: str, leaf: Any) -> Reparameterization:
        del name, leaf

        def init(weight: Array) -> Parts:
            return {"stored": weight, "logit": jnp.full_like(weight, mask_logit)}

        def forward(parts: Parts, step: Step) -> Array:
            return parts["stored"] * soft_mask(parts["logit"], step)

        def penalty(parts: Parts, step: Step) -> Array:
            return mask_penalty * jnp.sum(soft_mask(parts["logit"], step))

        return Reparameterization(init, forward, penalty=penalty)

    return self_sparse(inner, by_layer(make, layers), prunable=layers.prunable)
