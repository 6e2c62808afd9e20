r"""The ends of the spectrum of a large Hessian, by Lanczos' method.

From a start vector the method finds, product by product, a tridiagonal matrix
:math:`T` whose eigenvalues (Ritz values) come to agree with those of the Hessian, the
outermost first. The basis is orthogonalised against all earlier vectors twice, so that
no eigenvalue is found twice that is there once; that is matfree's doing. What is added
here: the method ends early where the vectors so far already span an invariant
subspace, which divides zero by zero; and each value comes with its residual.
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

ROUNDING = 10.0  # machine epsilons


class Tridiagonal(NamedTuple):
    """A symmetric operator in the basis that Lanczos' method finds.

    Attributes:
      diagonal: the diagonal of T, zero past `steps`.
      beside: what is beside it, zero from row `steps` - 1 on.
      basis: orthonormal rows, zero past `steps`.
      steps: how many rows are good; fewer than asked for if they span an invariant
        subspace, and 0 if the operator or the start is not finite, or the start zero.
    """

    diagonal: Float[Array, "k"]
    beside: Float[Array, "k-1"]
    basis: Float[Array, "k n"]
    steps: Int[Array, ""]


class Extremes(NamedTuple):
    """Eigenvalues at both ends of a spectrum, with error bounds.

    Attributes:
      top: the largest, descending.
      top_residuals: the norm of A y - a y for each value a and its unit vector y, by
        one more product. An eigenvalue lies within it of a, up to rounding.
      bottom: the smallest, ascending.
      bottom_residuals: the same for these.
      steps: how many steps of Lanczos' method there were.
    """

    top: Float[np.ndarray, "top"]
    top_residuals: Float[np.ndarray, "top"]
    bottom: Float[np.ndarray, "bottom"]
    bottom_residuals: Float[np.ndarray, "bottom"]
    steps: int


def tridiagonalise(
    product: hvp.Product, start: Float[Array, "n"], steps: int
) -> Tridiagonal:
    """Runs Lanczos' method with full reorthogonalisation.

    Usable under `jit` and `vmap`, with exactly `steps` products.

    The method has found an invariant subspace where the next vector is no longer than
    ten machine epsilons times the largest entry of T. It is then made of rounding, and
    what follows from it is dropped.

    Args:
      product: multiplies a vector by a symmetric matrix.
      start: where to start, not zero; needs no unit length.
      steps: number of products, 1 to n.

    Returns:
      T and the basis, in the type of `start`.

    References:
      Lanczos. An iteration method for the solution of the eigenvalue problem of linear
      differential and integral operators. 1950.
    """
    # matfree's own T averages lengths with products, which hides that one is zero.
    run = decomp.hessenberg(steps, reortho="full", custom_vjp=False)
    basis, found, _, _ = run(product, start)
    diagonal, beside = jnp.diagonal(found), jnp.diagonal(found, -1)
    entries = jnp.abs(diagonal).at[1:].max(beside)
    scale = lax.cummax(jnp.where(jnp.isfinite(entries), entries, 0.0))
    limit = ROUNDING * jnp.finfo(start.dtype).eps * scale[:-1]
    # A comparison with NaN is false: the row after 0/0 is no good either.
    goes_on = jnp.concatenate([jnp.isfinite(diagonal[:1]), beside > limit])
    good = jnp.cumprod(goes_on & jnp.isfinite(diagonal)).astype(bool)
    return Tridiagonal(
        jnp.where(good, diagonal, 0.0),
        jnp.where(good[1:], beside, 0.0),
        jnp.where(jnp.expand_dims(good, 1), basis, 0.0),
        jnp.sum(good),
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
    """Finds the largest and smallest eigenvalues of a symmetric operator.

    Takes `steps + top + bottom` products and the memory of `steps` vectors.

    Args:
      product: multiplies a vector [n] by the matrix, such as `products.operator`,
        whose data are then no constants of the program.
      n: length of the vectors.
      top: how many of the largest to return, 0 or more.
      bottom: how many of the smallest to return, 0 or more.
      steps: number of products, at most n are made; several times the number of
        values wanted.
      dtype: of the vectors.
      key: draws the start vector.

    Returns:
      Values and residuals. There are fewer than asked for if the method ended early.
      An eigenvalue of several dimensions may be found once only, or a few times: the
      method sees one direction of each eigenspace, and others by rounding. Values
      that have not converged are returned too; the residual tells them.

    Raises:
      ValueError: for counts out of range, or if a product is not finite.

    Examples:
      >>> found = extremes(lambda v: jnp.arange(10.0) * v, 10, top=2, bottom=1,
      ...                  steps=10, key=jax.random.key(0))
      >>> [round(float(value), 4) for value in found.top]
      [9.0, 8.0]
    """
    start = jax.random.normal(key, (n,), dtype)
    operand = as_operand(product)
    found = _tridiagonalise(operand, start, min(steps, n))
    values, turns = ritz(found)
    chosen = np.r_[np.arange(values.size)[::-1][:top], np.arange(values.size)[:bottom]]
    residuals = np.array(
        [
            _residual(operand, found.basis, turns[:, place], values[place])
            for place in chosen
        ]
    )
    ends = min(top, values.size)
    return Extremes(
        top=values[chosen[:ends]],
        top_residuals=residuals[:ends],
        bottom=values[chosen[ends:]],
        bottom_residuals=residuals[ends:],
        steps=int(found.steps),
    )


def ritz(
    found: Tridiagonal,
) -> tuple[Float[np.ndarray, "m"], Float[np.ndarray, "k m"]]:
    """Diagonalises T on the host, in float64.

    Args:
      found: concrete, not for use under `jit`.

    Returns:
      Its eigenvalues, ascending, and eigenvectors as columns, with zeros past `steps`.

    Raises:
      ValueError: if there was no good step.
    """
    steps = int(found.steps)
    if not steps:
        raise ValueError(
            "product: the first product is not finite, or the start is zero; wanted "
            "finite numbers; look for overflow in the loss or the network"
        )
    diagonal = np.asarray(found.diagonal, np.float64)
    beside = np.asarray(found.beside, np.float64)[: steps - 1]
    small = np.diag(diagonal[:steps]) + np.diag(beside, 1) + np.diag(beside, -1)
    values, vectors = np.linalg.eigh(small)
    turns = np.zeros((diagonal.size, steps))
    turns[:steps] = vectors
    return values, turns


def as_operand(product: hvp.Product) -> Any:
    """Makes a function an argument for `jit`, if it is not a tree of arrays already."""
    is_plain = jax.tree.leaves(product) == [product]
    return jax.tree_util.Partial(product) if is_plain else product


_tridiagonalise = jax.jit(tridiagonalise, static_argnames="steps")


def _residual(
    product: hvp.Product,
    basis: Float[Array, "k n"],
    turn: Float[np.ndarray, "k"],
    value: float,
) -> float:
    """Computes how far from an eigenvector a Ritz vector is.

    The difference is taken on the host: it is small between large numbers, and JAX
    0.10.2 on a CPU gets it wrong where it fuses it with the product (jax-ml/jax#39103).
    """
    vector, image = (
        np.asarray(part, np.float64)
        for part in _image(product, basis, jnp.asarray(turn, basis.dtype))
    )
    return float(np.linalg.norm(image - value * vector))


@jax.jit
def _image(
    product: hvp.Product, basis: Float[Array, "k n"], turn: Float[Array, "k"]
) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
    """Makes a vector of unit length out of the basis, and multiplies it."""
    vector = turn @ basis
    vector = vector / jnp.linalg.norm(vector)
    return vector, product(vector)
