"""Masks for optimizers that make weights zero themselves.

Reparameterizations and projections decide by themselves which weights are zero. Here
the masks follow the weights, so that counting, records and checkpoints know them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxsparse import masks as masks_lib
from jaxsparse import tree
from jaxsparse.layer_options import LayerOptions, Prunable
from jaxsparse.transforms import fitting
from jaxsparse.transforms.latent import latent
from jaxsparse.transforms.parts import ByName, Reparameterization
from jaxsparse.transforms.reparameterize import (
    ReparameterizedState,
    initial_weights,
    reparameterize,
)
from jaxsparse.transforms.state import LatentState
from jaxsparse.types import Masks, Params, Step


def self_sparse(
    inner: optax.GradientTransformation,
    reparameterization: Reparameterization | ByName,
    *,
    prunable: Prunable = masks_lib.is_kernel,
) -> optax.GradientTransformationExtraArgs:
    """Trains with a reparameterization that makes weights zero itself.

    The masks after an update are those of the weights that are not zero. Compute with
    `forward_params`: before the first update, the parameters are those that the loop
    has, which need not be zero outside the first masks.

    Args:
      inner: the optimizer to wrap, see `reparameterize`.
      reparameterization: one for all leaves that `prunable` selects, or a function of
        the parameters that returns those of single leaves by name.
      prunable: which leaves have masks: a function of a leaf's name and the leaf, or
        shell patterns of leaf names, where a pattern that begins with "!" excludes
        leaves. Masks of leaves that are not reparameterized keep every weight.

    Returns:
      A transformation whose state is a `LatentState`.

    Raises:
      ValueError: from `init`, see `reparameterize`.

    Examples:
      >>> halves = transforms.Reparameterization(  # the larger weights, less a half
      ...     init=lambda weight: {"stored": weight},
      ...     forward=lambda parts, step: (
      ...         jnp.sign(parts["stored"]) * jax.nn.relu(abs(parts["stored"]) - 0.5)
      ...     ),
      ... )
      >>> tx = transforms.self_sparse(optax.sgd(0.1), halves)
      >>> opt_state = tx.init(params)
      >>> grads = jax.grad(loss)(transforms.forward_params(params, opt_state), inputs)
      >>> updates, opt_state = tx.update(grads, opt_state, params)
      >>> params = optax.apply_updates(params, updates)
    """
    tx = reparameterize(inner, reparameterization, prunable=prunable)

    def is_mapped(params: Params) -> Callable[[str], bool]:
        if isinstance(reparameterization, Reparameterization):
            return _all
        return reparameterization(params).__contains__

    sparse = follow_zeros(tx, prunable=prunable, is_sparse=is_mapped)

    def init(params: Params) -> LatentState:
        state = sparse.init(params)
        if fitting.is_placeholder(params):
            return state
        # The parameters are not yet what the reparameterization makes of them.
        inner_state: ReparameterizedState = state.inner_state
        weights = initial_weights(
            reparameterization, inner_state, params, prunable=prunable
        )
        masks = nonzero(weights, prunable=prunable, is_sparse=is_mapped(params))
        return state._replace(masks=masks)

    return optax.GradientTransformationExtraArgs(init, sparse.update)


def follow_zeros(
    inner: optax.GradientTransformation,
    *,
    prunable: Prunable,
    is_sparse: Callable[[Params], Callable[[str], bool]] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adds masks that follow the zeros of the weights to an optimizer.

    Args:
      inner: an optimizer after whose updates some weights are exactly zero.
      prunable: which leaves have masks, as in `self_sparse`.
      is_sparse: called with the parameters; returns a function that tells by name which
        of these leaves have zeros. Masks of the others keep every weight. None if all
        of them may have zeros.

    Returns:
      A transformation whose state is a `LatentState`.
    """

    def mask_fn(params: Params, step: Step) -> tuple[Masks, None]:
        del step
        chosen = _all if is_sparse is None else is_sparse(params)
        return nonzero(params, prunable=prunable, is_sparse=chosen), None

    return latent(inner, mask_fn, refresh_at=lambda step: jnp.bool_(True))


def _all(name: str) -> bool:
    del name
    return True


def nonzero(
    weights: Params, *, prunable: Prunable, is_sparse: Callable[[str], bool]
) -> Masks:
    """Makes the masks of the weights that are not zero.

    Args:
      weights: the weights.
      prunable: which leaves have masks, as in `self_sparse`.
      is_sparse: tells by name which of them have zeros; masks of the others are True.
    """

    def mask_of(name: str, mask: Array, leaf: Array) -> Array:
        return leaf != 0 if is_sparse(name) else mask

    masks = masks_lib.ones(weights, prunable=prunable)
    leaves = tree.named_leaves(weights)
    return tree.map_with_names(
        lambda name, mask: mask_of(name, mask, leaves[name]), masks
    )


def by_layer(
    make: Callable[[str, Any], Reparameterization], layers: LayerOptions
) -> ByName:
    """Makes the function that reparameterizes the prunable leaves that are not dense.

    Args:
      make: called with the name of a leaf and the leaf; returns its reparameterization.
      layers: which leaves are prunable, and which of them are dense.

    Returns:
      A function of the parameters, for `reparameterize`.
    """

    def found(params: Params) -> Mapping[str, Reparameterization]:
        masks = jax.eval_shape(lambda: masks_lib.ones(params, prunable=layers.prunable))
        names = masks_lib.names(masks)
        masks_lib.check_globs(layers.dense, names, field="dense")
        leaves = tree.named_leaves(params)
        return {
            name: make(name, leaves[name])
            for name in names
            if not masks_lib.matches(name, layers.dense)
        }

    return found
