"""Learning rates by the density of each layer, for optimizers of sparse methods."""

from typing import Any

import jax.numpy as jnp
import optax

from jaxsparse import tree
from jaxsparse.types import Masks, Params


def scale_by_density() -> optax.GradientTransformationExtraArgs:
    r"""Divides the updates of each leaf by the density of its mask.

    This is how the sparse maximal update parameterization (SuPar) scales the learning
    rates of Adam: an output of a layer with density :math:`\rho` is a sum of
    :math:`\rho` times as many terms, each of which a step of Adam changes by about the
    learning rate. Divided by :math:`\rho`, a step changes the outputs as much as in the
    dense network, whose learning rate can therefore be kept. Initial weights are
    divided by :math:`\sqrt{\rho}` (`initializers.layer_scaled`).

    Place it at the end of the optimizer that a sparse method wraps. The method passes
    the masks of the step, so that densities which change during training are followed.

    Returns:
      A transformation without state. Updates of leaves without a mask or without active
      weights stay as they are.

    Raises:
      ValueError: from `update`, if no masks are passed: outside of a sparse method,
        inside of `reparameterize`, and inside of methods that train dense weights or
        make weights zero by themselves (`latent`, `self_sparse`, `project`); or if
        masks and updates have different leaves.

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
        state: optax.EmptyState,
        params: Params | None = None,
        *,
        masks: Masks | None = None,
        **extra: Any,
    ) -> tuple[Params, optax.EmptyState]:
        del params, extra
        if masks is None:
            raise ValueError(
                "masks: expected those of a sparse method that wraps this optimizer, "
                "got None; use a method with masks, such as transforms.fixed or "
                "transforms.rigl, and no reparameterization"
            )
        fitted = tree.match_structure(masks, updates, fields=("masks", "updates"))
        return tree.map_with_names(_divide, updates, fitted), state

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(), update
    )


def _divide(name: str, update: Any, mask: Any) -> Any:
    """Divides the updates of a leaf by the density of its mask."""
    del name
    if mask is None:
        return update
    density = jnp.mean(mask, dtype=jnp.float32)
    # Without active weights there is nothing to scale; 1 / 0 makes updates NaN.
    return (update / jnp.where(density > 0, density, 1)).astype(update.dtype)
