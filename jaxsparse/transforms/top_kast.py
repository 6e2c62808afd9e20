"""Top-KAST: computes with the largest weights and also trains the next largest."""

from fractions import Fraction

import jax.numpy as jnp
import optax

from jaxsparse import arguments, layer_options
from jaxsparse import masks as masks_lib
from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms import magnitude, update_schedules
from jaxsparse.transforms.latent import latent
from jaxsparse.types import Grads, Masks, Params, Step


@arguments.check(
    sparsity=arguments.fraction,
    backward_sparsity=arguments.real,
    regularization=arguments.number(0),
)
def top_kast(
    inner: optax.GradientTransformation,
    *,
    sparsity: float,
    backward_sparsity: float,
    update_every: int = 1,
    regularization: float = 0.0,
    layers: LayerOptions | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Computes with the largest weights and also trains the next largest: Top-KAST.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      sparsity: fraction of the prunable weights that the forward pass does not use, in
        [0, 1).
      backward_sparsity: fraction of the prunable weights that is not trained, in
        [0, sparsity].
      update_every: steps between mask updates, at least 1.
      regularization: coefficient c of the L2 regularizer, finite and at least 0. Its
        gradient is c w for weights in the forward pass, and c w / D for other trained
        weights, where D = 1 - sparsity is the density of the forward pass. Do not use
        other weight decay.
      layers: which leaves have masks, and how the weights of the forward pass and the
        trained weights are divided among them; the distribution is "uniform" by
        default. The forward pass uses all weights of dense layers. `structure` must be
        None.

    Returns:
      The wrapped optimizer.

    Raises:
      ValueError: if an argument is out of range or does not fit the network.

    Deviations:
      D is the density of the whole network, even where layers differ. The paper's
      coefficient depends on the task; here it is 0 unless given. The optimizer state of
      weights that are no longer trained is kept and decays.

    References:
      Jayakumar, Pascanu, Rae, Osindero, Elsen. Top-KAST: Top-K Always Sparse Training.
      2021. arXiv:2106.03517, section 2.
    """
    update_every = update_schedules.check_steps(
        update_every, field="update_every", minimum=1
    )
    if not 0 <= backward_sparsity <= sparsity:
        raise ValueError(
            f"backward_sparsity: expected a fraction in [0, {sparsity}], since every "
            f"weight of the forward pass is trained, got {backward_sparsity}"
        )
    layers = layer_options.resolve(
        layers,
        function="top_kast",
        distribution="uniform",
        unused=("structure", "pack_masks"),
    )
    select_masks = magnitude.make_mask_fn(layers)
    table = [Fraction(str(sparsity)), Fraction(str(backward_sparsity))]

    def mask_fn(params: Params, step: Step) -> tuple[Masks, Masks]:
        del step
        everything = masks_lib.ones(params, prunable=layers.prunable)
        trained = select_masks(everything, params, table, jnp.int32(1))
        # Chosen among the trained weights, so that the two masks are nested in all
        # cases, even if magnitudes tie.
        return select_masks(trained, params, table, jnp.int32(0)), trained

    def regularizer_grad(masks: Masks, trained: Masks, params: Params) -> Grads:
        # 1 - sparsity is D, the density of the forward pass.
        outside = regularization / (1 - sparsity)
        return masks_lib.tree_map(
            lambda mask, train, w: jnp.where(
                mask, regularization * w, jnp.where(train, outside * w, 0)
            ),
            masks,
            trained,
            params,
        )

    return latent(
        inner,
        mask_fn,
        refresh_at=lambda step: step % update_every == 0,
        regularizer_grad=regularizer_grad if regularization else None,
        trains_all=False,
    )
