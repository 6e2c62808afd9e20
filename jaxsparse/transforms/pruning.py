"""Methods that only ever remove weights, as wrappers of an optimiser."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsparse import masks as masks_lib
from jaxsparse.transforms.engine import sparsify
from jaxsparse.types import Masks, Params


def fixed(
    inner: optax.GradientTransformation, *, masks: Masks | None = None
) -> optax.GradientTransformationExtraArgs:
    """Trains with masks that do not change: tickets, and pruning at initialisation.

    Args:
      inner: any optimiser.
      masks: which weights exist; None to begin dense. Other masks can be put in at
        any time with `replace_masks`, without compiling anything again.

    Returns:
      The optimiser, keeping weights outside the masks at exactly zero.

    Raises:
      ValueError: from `init`, if a mask has another shape than its parameter.

    Examples:
      >>> tx = fixed(optax.adamw(1e-3), masks=ticket)
    """
    if masks is None:
        return sparsify(inner, masks_lib.dense)

    def init_masks(params: Params) -> Masks:
        def check(path: tuple[Any, ...], mask: Any, param: Any) -> Any:
            if mask is not None and mask.shape != param.shape:
                raise ValueError(
                    f"masks: {masks_lib.name_of(path)} has shape {mask.shape}; wanted "
                    f"{param.shape}, that of its parameter"
                )
            # A copy, so that a donated state never takes the caller's masks along.
            return None if mask is None else jnp.copy(mask)

        return jax.tree_util.tree_map_with_path(
            check, masks, params, is_leaf=lambda leaf: leaf is None
        )

    return sparsify(inner, init_masks)
