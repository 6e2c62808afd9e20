"""The forms of a layer: ways to store and multiply its weight matrix."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import lax
from jaxtyping import Array, Float, Int

# Weights denser than this are not tried in sparse forms.
MOST_DENSITY = 0.5
# Outputs are filled up with zeros to the same number of inputs up to this factor.
MOST_PADDING = 2.0
# With more columns, one gather of all inputs is larger than the caches of a CPU.
MOST_COLUMNS = 8


class Condensed(NamedTuple):
    """A matrix of the same number of active inputs for each output.

    Attributes:
      values: weights, [out, k]; zero where an output has fewer inputs.
      indices: numbers of their inputs, [out, k].
    """

    values: Float[np.ndarray, "out k"]
    indices: Int[np.ndarray, "out k"]


def density(matrix: np.ndarray) -> float:
    """Returns the fraction of entries that are not zero.

    Args:
      matrix: weights of any shape.
    """
    return np.count_nonzero(matrix) / max(1, matrix.size)


def condense(matrix: Float[np.ndarray, "out in"]) -> Condensed | None:
    """Stores the active weights of each output.

    Args:
      matrix: weights, zero where they are pruned.

    Returns:
      The stored weights; None if filling them up to the same number for each output
      would more than double them.

    Examples:
      >>> condense(np.array([[0.0, 2.0, 0.0], [3.0, 0.0, 0.0]])).indices.tolist()
      [[1], [0]]

    References:
      Lasby, Golubeva, Evci, Nica, Ioannou. Dynamic Sparse Training with Structured
      Sparsity. 2023. arXiv:2305.02299 (condensed representation).
    """
    counts = np.count_nonzero(matrix, axis=1)
    k = int(counts.max(initial=0))
    if k * len(matrix) > MOST_PADDING * counts.sum():
        return None
    # A stable sort has the active inputs first, in their own order.
    order = np.argsort(matrix == 0, axis=1, kind="stable")[:, :k].astype(np.int32)
    return Condensed(np.take_along_axis(matrix, order, axis=1), order)


def multiply_condensed(
    values: Float[Array, "out k"],
    indices: Int[Array, "out k"],
    columns: Float[Array, "in n"],
) -> Float[Array, "out n"]:
    """Multiplies a condensed matrix with columns; may be traced.

    Args:
      values: weights.
      indices: numbers of their inputs, in [0, in).
      columns: the columns.

    Returns:
      The products.

    Examples:
      >>> values, indices = jnp.array([[2.0], [3.0]]), jnp.array([[1], [0]])
      >>> multiply_condensed(values, indices, jnp.array([[1.0], [10.0], [5.0]]))
      Array([[20.],
             [ 3.]], dtype=float32)
    """
    if columns.shape[1] <= MOST_COLUMNS:
        rows = columns.T.at[:, indices].get(mode="promise_in_bounds")
        return (rows * jnp.expand_dims(values, 0)).sum(2).T

    def add(i: Any, total: Any) -> Any:
        index = lax.dynamic_index_in_dim(indices, i, 1, keepdims=False)
        weight = lax.dynamic_slice_in_dim(values, i, 1, 1)
        return total + weight * columns.at[index].get(mode="promise_in_bounds")

    shape = (values.shape[0], columns.shape[1])
    # The loop has a static length, so that an empty matrix is zero as well.
    return lax.fori_loop(0, values.shape[1], add, jnp.zeros(shape, columns.dtype))


class Csr:
    """A matrix of compressed sparse rows, multiplied by SciPy on the host."""

    def __init__(self, matrix: Float[np.ndarray, "out in"]) -> None:
        """Stores the active weights.

        Args:
          matrix: weights, zero where they are pruned.
        """
        self._matrix = scipy.sparse.csr_array(matrix)

    def __call__(self, columns: Any) -> np.ndarray:
        """Returns the products with columns, [out, n].

        Args:
          columns: array of NumPy or JAX, [in, n].
        """
        columns = np.asarray(columns)
        if columns.shape[1] == 1:
            # A product with a vector skips SciPy's loop over columns.
            return (self._matrix @ columns.ravel()).reshape(-1, 1)
        return self._matrix @ columns
