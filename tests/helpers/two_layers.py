"""Weights of two dense layers, for tests of pruning."""

from typing import Any

import jax.numpy as jnp
import numpy as np


def params() -> dict[str, Any]:
    draw = np.random.default_rng(0)
    return {
        name: {
            "kernel": jnp.asarray(draw.normal(size=shape).astype(np.float32)),
            "bias": jnp.asarray(np.ones(shape[1], np.float32)),
        }
        for name, shape in {"a": (30, 20), "b": (20, 10)}.items()
    }
