"""Variables of a network with random values, for tests of exports."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxsparse import tree


def drawn(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
    """Variables with random values in every leaf, and positive variances."""
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    shapes = jax.eval_shape(
        lambda key, x: model.init(key, x, train=False), jax.random.key(0), images
    )
    generator = np.random.default_rng(0)

    def draw(name: str, leaf: Any) -> jax.Array:
        values = generator.normal(size=leaf.shape) / np.sqrt(max(1, leaf.size))
        if name.endswith(("scale", "var")):
            values = 1 + np.abs(values)
        elif leaf.ndim > 1:
            values *= np.sqrt(leaf.shape[-1])
        return jnp.asarray(values, leaf.dtype)

    return tree.map_with_names(draw, shapes)
