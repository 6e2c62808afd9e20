"""The largest and smallest eigenvalues of a large Hessian, by the Lanczos method.

From a start vector the method builds, one product at a time, a tridiagonal matrix
:math:`T` whose eigenvalues (Ritz values) converge to those of the Hessian, the
outermost first. Each basis vector is orthogonalized twice against all earlier ones, so
that no simple eigenvalue is found twice. matfree implements this. The module adds two
things: it discards the vectors after those that span an invariant subspace, where the
recurrence would divide zero by zero, and it returns the residual of each eigenvalue.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key
from matfree import decomp

from jaxsparse import arguments
from jaxsparse.analysis.hessian import hvp

# In machine epsilons; a vector that is shorter, relative to T, is rounding error.
ROUNDING = 10.0


class Tridiagonal(NamedTuple):
    """A symmetric operator in the Lanczos basis.

    Attributes:
      diagonal: diagonal of T, [k]; zero from index `steps` on.
      off_diagonal: off-diagonal of T, [k - 1]; zero from index `steps` - 1 on.
      basis: orthonormal rows, [k, n]; zero from row `steps` on.
      steps: number of valid rows, int32. It is less than k if these rows span an
        invariant subspace, and 0 if the start vector is zero or the start vector or the
        first product is not finite.
    """

    diagonal: Float[Array, "k"]
    off_diagonal: Float[Array, "k-1"]
    basis: Float[Array, "k n"]
    steps: Int[Array, ""]


class Extremes(NamedTuple):
    """Eigenvalues at both ends of a spectrum, with error bounds.

    Attributes:
      top: the largest eigenvalues, descending.
      top_residuals: norm of A y - a y for each value a in `top` and its unit Ritz
        vector y, computed with one more product. Up to rounding, some eigenvalue of A
        is within this distance of a.
      bottom: the smallest eigenvalues, ascending.
      bottom_residuals: norm of A y - a y for each value a in `bottom`.
      steps: number of valid Lanczos steps.
    """

    top: Float[np.ndarray, "top"]
    top_residuals: Float[np.ndarray, "top"]
    bottom: Float[np.ndarray, "bottom"]
    bottom_residuals: Float[np.ndarray, "bottom"]
    steps: int


def tridiagonalize(
    product: hvp.Product, start: Float[Array, "n"], steps: int
) -> Tridiagonal:
    """Runs the Lanczos method with full reorthogonalization.

    Works under `jit` and `vmap`, and always computes `steps` products.

    The method has found an invariant subspace if the norm of the next vector is at most
    ten machine epsilons times the largest entry of T so far. That vector consists of
    rounding errors; it and all later vectors are discarded.

    Args:
      product: multiplies a vector [n] by a symmetric matrix.
      start: start vector, [n], not zero; any length.
      steps: number of products, 1 to n.

    Returns:
      T and the basis, in the dtype of `start`.

    References:
      Lanczos. An iteration method for the solution of the eigenvalue problem of linear
      differential and integral operators. 1950.
    """
    # matfree's `tridiag_sym` averages each off-diagonal entry from a norm and an inner
    # product, which hides that the norm is zero. The Hessenberg form keeps the norm.
    run = decomp.hessenberg(steps, reortho="full", custom_vjp=False)
    basis, tridiagonal, _, _ = run(product, start)
    diagonal, off_diagonal = jnp.diagonal(tridiagonal), jnp.diagonal(tridiagonal, -1)
    entries = jnp.abs(diagonal).at[1:].max(off_diagonal)
    scale = lax.cummax(jnp.where(jnp.isfinite(entries), entries, 0.0))
    limit = ROUNDING * jnp.finfo(start.dtype).eps * scale[:-1]
    # Comparisons with NaN are false, so the row that results from 0/0 is invalid too.
    is_valid_step = jnp.concatenate([jnp.isfinite(diagonal[:1]), off_diagonal > limit])
    is_valid = jnp.cumprod(is_valid_step & jnp.isfinite(diagonal)).astype(bool)
    return Tridiagonal(
        jnp.where(is_valid, diagonal, 0.0),
        jnp.where(is_valid[1:], off_diagonal, 0.0),
        jnp.where(jnp.expand_dims(is_valid, 1), basis, 0.0),
        jnp.sum(is_valid),
    )


@arguments.check(
    product=arguments.function,
    n=arguments.integer(1),
    top=arguments.integer(0),
    bottom=arguments.integer(0),
    steps=arguments.integer(1),
)
def extremes(
    product: hvp.Product,
    n: int,
    *,
    top: int = 5,
    bottom: int = 5,
    steps: int = 100,
    dtype: DTypeLike = jnp.float32,
    key: Key[Array, ""],
) -> Extremes:
    """Computes the largest and smallest eigenvalues of a symmetric operator.

    Takes `steps + top + bottom` products and the memory of `steps` vectors.

    Args:
      product: multiplies a vector [n] by the matrix. If it is a pytree, such as
        `hvp.operator` returns, its data are arguments of the compiled program instead
        of constants.
      n: length of the vectors.
      top: number of largest eigenvalues to return, 0 or more.
      bottom: number of smallest eigenvalues to return, 0 or more.
      steps: number of Lanczos steps, 1 or more and limited to n; several times `top` +
        `bottom`.
      dtype: floating dtype of the vectors.
      key: random key for the start vector.

    Returns:
      Eigenvalues and residuals. There are fewer than requested if the method stopped
      early. An eigenvalue with several eigenvectors may be found only once, or fewer
      times than its multiplicity: the method finds one direction of each eigenspace,
      and others only through rounding. Values that have not converged are returned too,
      and have large residuals.

    Raises:
      ValueError: if an argument is out of range, or the first product is not finite.

    Examples:
      >>> found = extremes(lambda v: jnp.arange(10.0) * v, 10, top=2, bottom=1,
      ...                  steps=10, key=jax.random.key(0))
      >>> [round(float(value), 4) for value in found.top]
      [9.0, 8.0]
    """
    start = jax.random.normal(key, (n,), dtype)
    operand = as_operand(product)
    tridiagonal = _tridiagonalize(operand, start, min(steps, n))
    values, ritz_vectors = ritz(tridiagonal)
    selected = np.r_[
        np.arange(values.size)[::-1][:top], np.arange(values.size)[:bottom]
    ]
    residuals = np.array(
        [
            _residual(operand, tridiagonal.basis, ritz_vectors[:, place], values[place])
            for place in selected
        ]
    )
    num_top = min(top, values.size)
    return Extremes(
        top=values[selected[:num_top]],
        top_residuals=residuals[:num_top],
        bottom=values[selected[num_top:]],
        bottom_residuals=residuals[num_top:],
        steps=int(tridiagonal.steps),
    )


def ritz(
    tridiagonal: Tridiagonal,
) -> tuple[Float[np.ndarray, "m"], Float[np.ndarray, "k m"]]:
    """Computes the eigenvalues and eigenvectors of T on the host, in float64.

    Args:
      tridiagonal: concrete arrays; this function does not work under `jit`.

    Returns:
      The eigenvalues, [steps], ascending, and the eigenvectors as columns, [k, steps],
      zero from row `steps` on.

    Raises:
      ValueError: if there is no valid step.
    """
    steps = int(tridiagonal.steps)
    if not steps:
        raise ValueError(
            "product: expected a finite first product and a start vector that is not "
            "zero, got no valid Lanczos step; look for overflow in the loss or the "
            "network"
        )
    diagonal = np.asarray(tridiagonal.diagonal, np.float64)
    off_diagonal = np.asarray(tridiagonal.off_diagonal, np.float64)[: steps - 1]
    matrix = (
        np.diag(diagonal[:steps]) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
    )
    values, vectors = np.linalg.eigh(matrix)
    ritz_vectors = np.zeros((diagonal.size, steps))
    ritz_vectors[:steps] = vectors
    return values, ritz_vectors


def as_operand(product: hvp.Product) -> Any:
    """Returns `product` as a pytree, which can be an argument under `jit`.

    Args:
      product: a function that multiplies a matrix with a vector.
    """
    # A plain function is its own only leaf; wrapped in Partial it is static, and a new
    # function object compiles a new program.
    is_plain = jax.tree.leaves(product) == [product]
    return jax.tree_util.Partial(product) if is_plain else product


_tridiagonalize = jax.jit(tridiagonalize, static_argnames="steps")


def _residual(
    product: hvp.Product,
    basis: Float[Array, "k n"],
    coordinates: Float[np.ndarray, "k"],
    value: float,
) -> float:
    """Computes the norm of the residual of a Ritz vector.

    The subtraction runs on the host: its result is much smaller than both operands, and
    JAX 0.10.2 on a CPU computes it wrongly when it fuses it with the product
    (jax-ml/jax#39103).

    Args:
      product: multiplies a vector [n] by the matrix.
      basis: Lanczos basis.
      coordinates: eigenvector of T, the coordinates of the Ritz vector in the basis.
      value: eigenvalue of T.
    """
    vector, image = (
        np.asarray(part, np.float64)
        for part in _image(product, basis, jnp.asarray(coordinates, basis.dtype))
    )
    return float(np.linalg.norm(image - value * vector))


@jax.jit
def _image(
    product: hvp.Product, basis: Float[Array, "k n"], coordinates: Float[Array, "k"]
) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
    """Returns the unit Ritz vector with these coordinates, and its product."""
    vector = coordinates @ basis
    vector = vector / jnp.linalg.norm(vector)
    return vector, product(vector)
