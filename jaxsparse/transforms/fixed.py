"""Training with fixed masks, as an optimizer wrapper."""

import jax
import jax.numpy as jnp
import optax

from jaxsparse import masks as masks_lib
from jaxsparse import tree
from jaxsparse.layer_options import LayerOptions, Prunable
from jaxsparse.transforms import init_masks as init_masks_lib
from jaxsparse.transforms.sparsify import sparsify
from jaxsparse.types import Masks, Params


def fixed(
    inner: optax.GradientTransformation,
    *,
    masks: Masks | None = None,
    prunable: Prunable = masks_lib.is_kernel,
    pack_masks: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Trains with masks that never change: tickets, and pruning at initialization.

    Args:
      inner: the optimizer to wrap; any optax gradient transformation.
      masks: boolean masks with the leaf names and shapes of the parameters; None where
        a leaf is not prunable. Without this argument all weights are active.
        `replace_masks` can replace the masks at any time without recompilation.
      prunable: which leaves have masks when `masks` is None: a function of a leaf's
        name and the leaf, or shell patterns of leaf names, where a pattern that begins
        with "!" excludes leaves. The default selects leaves called kernel, weight, w or
        embedding that have a floating-point dtype and at least two axes.
      pack_masks: whether the state stores two bits for each weight in place of a byte.
        Training is bit for bit the same; every step unpacks them.

    Returns:
      The wrapped optimizer, which keeps weights outside the masks at exactly zero.

    Raises:
      ValueError: if both `masks` and `prunable` are given; from `init`, if a mask is
        missing, is not boolean, or has another shape than its parameter.

    Examples:
      >>> ticket = prune.prune(params, 0.9)
      >>> tx = transforms.fixed(optax.adamw(1e-3), masks=ticket)
      >>> opt_state = tx.init(params)
      >>> params = masks.apply(ticket, params)  # updates keep the zeros
    """
    layers = LayerOptions(pack_masks=pack_masks)
    if masks is None:
        dense = lambda params: masks_lib.ones(params, prunable=prunable)  # noqa: E731
        return sparsify(inner, init_masks_lib.stored(dense, layers))
    if prunable is not masks_lib.is_kernel:
        raise ValueError(
            f"prunable: expected no value together with masks, which are None where a "
            f"leaf is not prunable, got {prunable}"
        )

    def init_masks(params: Params) -> Masks:
        masks_lib.check_boolean(masks, remedy="make masks with masks.ones")
        # Matched by leaf names: masks and parameters may differ in their node types.
        fitted = tree.match_structure(masks, params, fields=("masks", "params"))
        # A copy: donating the state must not delete the caller's masks.
        return jax.tree.map(jnp.copy, fitted)

    return sparsify(inner, init_masks_lib.stored(init_masks, layers))
