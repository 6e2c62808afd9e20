"""SR-STE: computes with the n largest of every m weights and trains all of them."""

import dataclasses
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import optax

from jaxsparse import arguments, layer_options, select
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import magnitude, update_schedules
from jaxsparse.transforms.latent import latent
from jaxsparse.types import Grads, Masks, Params, Step


@arguments.check(decay=arguments.number(0))
def sr_ste(
    inner: optax.GradientTransformation,
    *,
    n: int = 2,
    m: int = 4,
    decay: float = 2e-4,
    update_every: int = 1,
    layers: LayerOptions | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Computes with the n largest of every m weights, and trains all of them: SR-STE.

    Groups of m consecutive weights lie along the input axis. For weights outside the
    masks, `decay` times the weight is added to the gradient, which keeps weights from
    changing between active and inactive all the time.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      n: weights of each group that the forward pass uses, in [1, m].
      m: weights in a group.
      decay: coefficient of the regularizer for weights outside the masks, finite and at
        least 0; 0 gives the plain straight-through estimator.
      update_every: steps between mask updates, at least 1.
      layers: which leaves have masks. The forward pass uses all weights of dense
        layers; every other leaf must have a number of inputs divisible by m. The
        options that divide a sparsity (`distribution`, `structure` and
        `min_layer_density`) must have their defaults.

    Returns:
      The wrapped optimizer.

    Raises:
      ValueError: if an argument is out of range or a layer's inputs are not divisible
        by m.
      TypeError: if `n` or `m` is not an integer.

    References:
      Zhou, Ma, Zhu, Liu, Zhang, Yuan, Sun, Li. Learning N:M Fine-grained Structured
      Sparse Neural Networks From Scratch. 2021. arXiv:2102.04010, equation 8.
    """
    update_every = update_schedules.check_steps(
        update_every, field="update_every", minimum=1
    )
    check_group(n, m)
    layers = layer_options.resolve(
        layers,
        function="sr_ste",
        distribution=None,
        unused=layer_options.OWN_COUNTS,
    )
    layers = dataclasses.replace(
        layers, distribution="uniform", structure=select.n_of_m(m)
    )
    select_masks = magnitude.make_mask_fn(layers)

    def mask_fn(params: Params, step: Step) -> tuple[Masks, None]:
        del step
        everything = masks_lib.ones(params, prunable=layers.prunable)
        # An exact fraction, since most 1 - n / m have no exact float.
        return select_masks(
            everything, params, [1 - Fraction(n, m)], jnp.int32(0)
        ), None

    def regularizer_grad(masks: Masks, trained: None, params: Params) -> Grads:
        del trained
        return masks_lib.tree_map(
            lambda mask, w: jnp.where(mask, 0, decay * w),
            masks,
            params,
        )

    return latent(
        inner,
        mask_fn,
        refresh_at=lambda step: step % update_every == 0,
        regularizer_grad=regularizer_grad if decay else None,
    )


def check_group(n: int, m: int) -> None:
    """Checks the numbers of N:M sparsity.

    Args:
      n: weights of each group that remain.
      m: weights in a group.

    Raises:
      ValueError: if `n` is not in [1, m].
      TypeError: if one of them is not an integer.
    """
    for field, value in (("n", n), ("m", m)):
        if not isinstance(value, int | np.integer):
            raise TypeError(f"{field}: expected an integer, got {value!r}")
    if not 1 <= n <= m:
        raise ValueError(f"n: expected an integer from 1 to m={m}, got {n}")
