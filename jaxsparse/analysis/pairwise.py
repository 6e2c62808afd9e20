"""Computes a measure of two members for all pairs in a stack."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from jaxsparse import arguments, tree

PairMeasure = Callable[[Any, Any], Array]


class PairStatistics(NamedTuple):
    """Mean and spread of a measure over all pairs.

    Attributes:
      mean: mean over pairs.
      sd: standard deviation over pairs, with n - 1 degrees of freedom; NaN for a single
        pair. Pairs that share a member are not independent, so it does not give a
        standard error of the mean.
      pairs: number of pairs, m (m - 1) / 2 for m members.
    """

    mean: float
    sd: float
    pairs: int


@arguments.check(measure=arguments.function)
def pairwise(measure: PairMeasure, stack: PyTree) -> Float[Array, "m m"]:
    """Computes a measure for all ordered pairs.

    One compiled program computes the pairs one after another, so that the memory needed
    beyond the stack is that of one pair. To compare a stack with one other member, use
    `jax.vmap` or `lax.map`.

    Args:
      measure: called as `measure(first, second)` with two members of the stack; returns
        a scalar. The program is compiled once for each function object: bind options
        once, not anew in every iteration of a loop.
      stack: a tree whose leaves begin with the axis of members, [m, ...], such as
        stacked solutions, logits or activations.

    Returns:
      A matrix [m, m] with the measure of members i and j at [i, j].

    Raises:
      ValueError: if the leaves do not begin with one common axis. Errors raised by
        `measure` are passed on.

    Examples:
      >>> from jaxsparse.analysis import predictions
      >>> logits = jnp.array([[[2.0, 1.0], [0.0, 1.0]], [[1.0, 2.0], [0.0, 1.0]]])
      >>> pairwise(predictions.disagreement, logits)
      Array([[0. , 0.5],
             [0.5, 0. ]], dtype=float32)
    """
    tree.leading_axis(stack, field="stack")
    return _matrix(measure, jax.tree.map(jnp.asarray, stack))


@functools.partial(jax.jit, static_argnums=0)
def _matrix(measure: PairMeasure, stack: Any) -> Float[Array, "m m"]:
    indices = jnp.arange(len(jax.tree.leaves(stack)[0]), dtype=jnp.int32)

    def member(index: Array) -> Any:
        return jax.tree.map(lambda leaf: leaf[index], stack)

    def row(index: Array) -> Any:
        first = member(index)
        # Not vmap, which would need the memory of all pairs of a row at once.
        return lax.map(lambda other: measure(first, member(other)), indices)

    return lax.map(row, indices)


def over_pairs(matrix: Any) -> PairStatistics:
    """Averages a matrix of `pairwise` over pairs of different members.

    For a measure that is not symmetric, such as the Kullback-Leibler divergence, the
    two directions of a pair are averaged first.

    Args:
      matrix: measures of all ordered pairs, [m, m] with m of 2 or more.

    Returns:
      Mean and standard deviation over the m (m - 1) / 2 pairs, in float64.

    Raises:
      ValueError: if the matrix is not square or m is less than 2.

    Examples:
      >>> over_pairs(np.array([[0.0, 0.25, 0.5], [0.25, 0.0, 0.75], [0.5, 0.75, 0.0]]))
      PairStatistics(mean=0.5, sd=0.25, pairs=3)
    """
    matrix = np.asarray(matrix, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ValueError(
            "matrix: expected shape (m, m) with m of at least 2, as `pairwise` "
            f"returns, got {matrix.shape}"
        )
    pair_values = ((matrix + matrix.T) / 2)[np.triu_indices(len(matrix), k=1)]
    sd = float(np.std(pair_values, ddof=1)) if pair_values.size > 1 else float("nan")
    return PairStatistics(float(np.mean(pair_values)), sd, pair_values.size)
