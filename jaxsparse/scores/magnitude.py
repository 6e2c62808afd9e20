"""Scores that need neither data nor a network: magnitude and random."""

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
      params: parameters of the network.
      masks: defines the prunable leaves; None where a leaf is not prunable.

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
    """Scores each weight by an independent uniform random number.

    The key of each leaf is derived from the leaf's name, so adding a layer does not
    change the scores of the others.

    Args:
      masks: defines the prunable leaves; only names and shapes are used.
      key: typed random key, from `jax.random.key`.

    Returns:
      float32 scores in [0, 1); None where the mask is None.
    """
    return tree.map_with_names(
        lambda name, leaf: jax.random.uniform(
            rng.leaf_key(key, name), leaf.shape, jnp.float32
        ),
        masks,
    )
