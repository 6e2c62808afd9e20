"""A small network with biases and its masks, for tests of scores."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsparse import masks
from jaxsparse.types import Masks, Params

SIZES = (5, 6, 4, 3)


def mlp(key: int = 0, dtype: Any = jnp.float32) -> Params:
    draw = np.random.default_rng(key)
    return {
        f"layer{i}": {
            "kernel": jnp.asarray(draw.normal(size=shape).astype(dtype)),
            "bias": jnp.asarray(draw.normal(size=shape[1]).astype(dtype)),
        }
        for i, shape in enumerate(zip(SIZES[:-1], SIZES[1:], strict=True))
    }


def apply(params: Params, x: Any, act: Any = jnp.tanh) -> Any:
    for i in range(len(params)):
        layer = params[f"layer{i}"]
        x = act(x) if i else x
        x = x @ layer["kernel"] + jnp.expand_dims(layer["bias"], 0)
    return x


def some_masks(params: Params, key: int = 5) -> Masks:
    draw = np.random.default_rng(key)
    return masks.tree_map(
        lambda leaf: jnp.asarray(draw.random(leaf.shape) > 0.3), every(params)
    )


def every(params: Params) -> Masks:
    """All kernels, dense."""
    return {
        name: jax.tree.map(lambda leaf: None, layer)
        | {"kernel": jnp.asarray(np.ones(layer["kernel"].shape, bool))}
        for name, layer in params.items()
    }
