"""STR: weights are soft-thresholded, by a learned threshold for each layer."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxsparse import arguments, layer_options
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms.parts import Parts, Reparameterization
from jaxsparse.transforms.self_sparse import by_layer, self_sparse
from jaxsparse.types import Step


@arguments.check(threshold_logit=arguments.number())
def learned_threshold(
    inner: optax.GradientTransformation,
    *,
    threshold_logit: float = -12.0,
    layers: LayerOptions | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Sets weights below a learned threshold of their layer to zero: STR.

    Weights are :math:`\mathrm{sign}(w) \, \mathrm{relu}(|w| - \sigma(s))`, where w and
    the scalar s of each layer are trained and :math:`\sigma` is the sigmoid. The weight
    decay of `inner` draws s from its negative initial value toward zero, and so raises
    the threshold: decay and initial value together set the sparsity that training ends
    with.

    Args:
      inner: the optimizer to wrap, usually with weight decay; any optax gradient
        transformation except `optax.lookahead`.
      threshold_logit: initial value of s, finite.
      layers: which leaves have masks, and which of them are dense, without a threshold.
        All other options must have their defaults.

    Returns:
      The wrapped optimizer. Compute with `forward_params`.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Examples:
      >>> tx = transforms.learned_threshold(
      ...     optax.adamw(1e-3, weight_decay=1e-3), threshold_logit=-5.0
      ... )

    Deviations:
      Training starts at the network's initial weights; there w is larger by the initial
      threshold. The authors' initial value depends on the network (-3200 for ResNet-50
      on ImageNet, where decay is long); here it is -12 unless given.

    References:
      Kusupati, Ramanujan, Somani, Wortsman, Jain, Kakade, Farhadi. Soft Threshold
      Weight Reparameterization for Learnable Sparsity. 2020. arXiv:2002.03231, section
      3, and the authors' code.
    """
    layers = layer_options.resolve(
        layers,
        function="learned_threshold",
        distribution=None,
        unused=layer_options.ALL_BUT_LEAVES,
    )

    def make(name: str, leaf: Any) -> Reparameterization:
        del name, leaf

        def init(weight: Array) -> Parts:
            # As many axes as the weight: then a mask of weight decay that selects
            # kernels by name and axes selects it too, as it must.
            logit = jnp.full((1,) * weight.ndim, threshold_logit, weight.dtype)
            shift = jnp.sign(weight) * jax.nn.sigmoid(logit)
            return {"stored": weight + shift, "logit": logit}

        return Reparameterization(init, _soft_threshold)

    return self_sparse(inner, by_layer(make, layers), prunable=layers.prunable)


def _soft_threshold(parts: Parts, step: Step) -> Array:
    del step
    stored, threshold = parts["stored"], jax.nn.sigmoid(parts["logit"])
    return jnp.sign(stored) * jax.nn.relu(jnp.abs(stored) - threshold)
