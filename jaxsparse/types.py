"""Type aliases of the pytrees that jaxsparse uses.

A tree of masks has exactly the nesting of its parameters. Each leaf is a boolean array
of the parameter's shape, or None if the parameter is never pruned, such as biases and
normalization parameters, or leaves that the `prunable` argument of `masks.ones`
excludes. The same holds for trees of scores and of counts, with an array of scores or a
single count in place of the boolean array.
"""

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Key, PyTree, Real, UInt32

Params = PyTree[Float[Array, "..."]]
Grads = Params
Scores = PyTree[Real[Array, "..."] | Real[np.ndarray, "..."]]
Masks = PyTree[Bool[Array, "..."]]
Count = Integer[Array, ""] | int | np.integer
Counts = PyTree[Count]
Step = Int[Array, ""]
# A typed key (`jax.random.key`) or raw key data (`jax.random.PRNGKey`).
RandomKey = Key[Array, "..."] | UInt32[Array, "..."]
