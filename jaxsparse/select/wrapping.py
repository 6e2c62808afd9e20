"""Wrapped diagonals of matrices, as rows of an array, and back.

Place k of diagonal d of a matrix with at least as many columns as rows is (k, k + d),
where columns are counted modulo their number; of a matrix with more rows it is
(k + d, k), with rows counted modulo theirs. There are as many diagonals as the longer
side has entries, each of the length of the shorter side, and every entry is on one.
"""

import jax.numpy as jnp
from jaxtyping import Array, Shaped


def to_diagonals(
    matrices: Shaped[Array, "stack inputs outputs"],
) -> Shaped[Array, "stack diagonals places"]:
    """Lists the entries of matrices by diagonals.

    Args:
      matrices: the matrices.

    Returns:
      The same entries, [stack, diagonals, places].
    """
    return jnp.swapaxes(_skew(_wide(matrices)), 1, 2)


def from_diagonals(
    diagonals: Shaped[Array, "stack diagonals places"], inputs: int
) -> Shaped[Array, "stack inputs outputs"]:
    """Computes the matrices of diagonals, the inverse of `to_diagonals`.

    Args:
      diagonals: the entries by diagonals.
      inputs: number of rows of the matrices.
    """
    # Reversing the diagonals turns the shifts to the other side.
    shifted = jnp.swapaxes(diagonals, 1, 2)[..., ::-1]
    matrices = _skew(shifted)[..., ::-1]
    is_wide = matrices.shape[1] == inputs
    return matrices if is_wide else jnp.swapaxes(matrices, 1, 2)


def _wide(matrices: Shaped[Array, "s m n"]) -> Shaped[Array, "s short long"]:
    """Transposes matrices with more rows than columns."""
    _, inputs, outputs = matrices.shape
    return matrices if inputs <= outputs else jnp.swapaxes(matrices, 1, 2)


def _skew(wide: Shaped[Array, "s short long"]) -> Shaped[Array, "s short long"]:
    """Shifts row k of each matrix by k to the left, with wrapping.

    Two copies side by side are read as rows that are one longer, each of which starts
    one further to the right than the row above it.
    """
    stack, short, long = wide.shape
    twice = jnp.concatenate([wide, wide], axis=2).reshape(stack, -1)
    padded = jnp.pad(twice, ((0, 0), (0, short)))
    return padded.reshape(stack, short, 2 * long + 1)[..., :long]
