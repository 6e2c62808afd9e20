"""Scores that need no data: magnitude, and chance."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxsparse import arguments, rng, tree
from jaxsparse import masks as masks_lib
from jaxsparse.types import Masks, Params, Scores


@arguments.check(params=arguments.weights, masks=arguments.masks)
def magnitude(params: Params, masks: Masks) -> Scores:
    """Scores each weight by its absolute value.

    Args:
      params: the weights.
      masks: which leaves are prunable, same nesting as `params`.

    Returns:
      |w| in the dtype of `params`; None where the mask is None.

    Examples:
      >>> params = {"kernel": jnp.array([-2.0, 1.0]), "bias": jnp.array([3.0])}
      >>> magnitude(params, {"kernel": jnp.array([True, True]), "bias": None})
      {'bias': None, 'kernel': Array([2., 1.], dtype=float32)}

    References:
      Han, Pool, Tran, Dally. Learning both Weights and Connections for Efficient
      Neural Networks. 2015. arXiv:1506.02626, section 3.
    """
    return masks_lib.tree_map(lambda _, leaf: jnp.abs(leaf), masks, params)


@arguments.check(masks=arguments.masks)
def random(masks: Masks, *, key: Key[Array, ""]) -> Scores:
    """Scores each weight by an independent uniform draw.

    Each leaf draws with a key of its name, so adding a layer does not reshuffle the
    others.

    Args:
      masks: which leaves are prunable; only names and shapes are used.
      key: what to draw with.

    Returns:
      float32 in [0, 1); None where the mask is None.
    """
    return tree.map_with_names(
        lambda name, leaf: jax.random.uniform(
            rng.leaf_key(key, name), leaf.shape, jnp.float32
        ),
        masks,
    )
