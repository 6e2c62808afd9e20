"""Names for the pytrees that flow through jaxsparse.

Nothing here runs. A tree of masks has exactly the nesting of the parameters it
belongs to; a leaf is a boolean array of the parameter's shape, or None where the
parameter is never pruned (biases, normalisation, whatever `masks.dense` was told
to leave alone). Trees of scores and of counts follow the same rule.
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
# Typed, or raw key data.
RandomKey = Key[Array, "..."] | UInt32[Array, "..."]
