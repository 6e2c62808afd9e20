"""Learning rates by the density of each layer, for optimizers of sparse methods."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxsparse import tree
from jaxsparse.types import Masks, Params


class DensityState(NamedTuple):
    """State without arrays, by which a sparse method knows to pass its masks."""


def takes_masks(state: optax.OptState) -> bool:
    """Returns whether an optimizer contains `scale_by_density`.

    Args:
      state: the state of the optimizer.
    """

    def is_density(node: Any) -> bool:
        return isinstance(node, DensityState)

    return any(map(is_density, jax.tree.leaves(state, is_leaf=is_density)))


def scale_by_density() -> optax.GradientTransformationExtraArgs:
    r"""Divides the updates of each kernel by the density of its mask.

    For Adam and its variants. This is how the sparse maximal update parameterization
    (SuPar) scales their learning rates: an output of a layer with density :math:`\rho`
    is a sum of :math:`\rho` times as many terms, each of which a step of Adam changes
    by about the learning rate. Divided by :math:`\rho`, a step changes the outputs as
    much as in the dense network, whose learning rate can therefore be kept. Initial
    weights are divided by :math:`\sqrt{\rho}` (`initializers.layer_scaled`).

    Place it at the end of the optimizer that a sparse method wraps. The method passes
    the masks of the step, so that densities which change during training are followed.
    Decoupled weight decay in that optimizer is divided too, as a higher learning rate
    would raise it. Leave embeddings without masks: each of their outputs is a single
    weight and no sum.

    Returns:
      A transformation without arrays in its state. Updates stay as they are in leaves
      without a mask, without active weights, or with fewer than two axes.

    Raises:
      ValueError: from `update`, if no masks are passed: outside of a sparse method,
        inside of `reparameterize`, of methods that train dense weights or make weights
        zero by themselves (`latent`, `self_sparse`, `project`), and of wrappers that
        pass on no keyword arguments, such as `optax.lookahead`; or if masks and updates
        have different leaves.

    Examples:
      >>> ticket = prune.prune(params, 0.9)
      >>> adam = optax.chain(optax.adam(1e-3), transforms.scale_by_density())
      >>> tx = transforms.fixed(adam, masks=ticket)
      >>> opt_state = tx.init(params)

    Deviations:
      The factors for widths are in `initializers.supar`, which needs a base network.

    References:
      Dey, Bergsma, Hestness. Sparse maximal update parameterization: A holistic
      approach to sparse training dynamics. 2024. arXiv:2405.15743, table 1.
    """

    def update(
        updates: Params,
        state: DensityState,
        params: Params | None = None,
        *,
        masks: Masks | None = None,
        **extra: Any,
    ) -> tuple[Params, DensityState]:
        del params, extra
        if masks is None:
            raise ValueError(
                "masks: expected the masks of a sparse method around this optimizer, "
                "got None; use a method such as transforms.fixed or transforms.rigl, "
                "without a reparameterization, and between the two no wrapper that "
                "drops keyword arguments"
            )
        fitted = tree.match_structure(masks, updates, fields=("masks", "updates"))
        return tree.map_with_names(_divide, updates, fitted), state

    return optax.GradientTransformationExtraArgs(lambda params: DensityState(), update)


def _divide(name: str, update: Any, mask: Any) -> Any:
    """Divides the updates of a leaf by the density of its mask."""
    del name
    if mask is None or update.ndim < 2:
        return update
    # Counted as integers: a sum of ones in float32 stops at 2**24.
    density = jnp.sum(mask, dtype=jnp.int32) / mask.size
    # Without active weights there is nothing to scale; 1 / 0 makes updates NaN.
    return (update / jnp.where(density > 0, density, 1)).astype(update.dtype)
