"""States of optimizers as numpy arrays, and their comparison."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def plain(tree: Any) -> Any:
    def convert(leaf: Any) -> Any:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return jax.tree.map(convert, tree)


def check_alike(got: Any, wanted: Any) -> None:
    """All but floats equal, masks among them; floats to a tolerance."""

    def check(leaf: Any, other: Any) -> None:
        # snfs keeps its momentum in float32.
        near = {"float64": 1e-9, "float32": 1e-5}.get(str(leaf.dtype), 0)
        np.testing.assert_allclose(leaf, other, rtol=near, atol=near)

    jax.tree.map(check, plain(got), plain(wanted))
