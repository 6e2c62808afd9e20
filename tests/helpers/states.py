"""States of optimizers as numpy arrays, and their comparison."""

from typing import Any

import jax
import numpy as np

from jaxsparse import rng


def plain(tree: Any) -> Any:
    def convert(leaf: Any) -> Any:
        return np.asarray(jax.random.key_data(leaf) if rng.is_key(leaf) else leaf)

    return jax.tree.map(convert, tree)


def check_alike(got: Any, wanted: Any) -> None:
    """All but floats equal, masks among them; floats to a tolerance."""

    def check(leaf: Any, other: Any) -> None:
        # snfs keeps its momentum in float32.
        near = {"float64": 1e-9, "float32": 1e-5}.get(str(leaf.dtype), 0)
        np.testing.assert_allclose(leaf, other, rtol=near, atol=near)

    jax.tree.map(check, plain(got), plain(wanted))
