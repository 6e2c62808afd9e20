r"""Estimates of the trace and the spectral density of a large Hessian.

For a random vector :math:`v` of signs, the mean of :math:`v^\top A v` is the trace. In
the same way :math:`v^\top f(A) v / n` estimates the mean of :math:`f` over the
spectrum. The Lanczos method with start vector :math:`v` computes it as a sum over nodes
(the Ritz values) with weights (the squared first entries of the eigenvectors of T).
Nodes and weights are thus an estimate of the spectral density. `lanczos` implements the
method; this module applies it to several random vectors (probes).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from jaxsparse import arguments
from jaxsparse.analysis.hessian import hvp, lanczos


class Estimate(NamedTuple):
    """A mean over random vectors.

    Attributes:
      mean: the estimate.
      error: standard error of the estimate.
    """

    mean: float
    error: float


class Quadrature(NamedTuple):
    """A spectral density as nodes and weights.

    Attributes:
      nodes: eigenvalues, [probes, steps]; 0 with weight 0 where a probe stopped early.
      weights: nonnegative weights, [probes, steps], whose sum is 1 for each probe.
      n: number of eigenvalues that the density represents.
      dtype: name of the dtype in which the products were computed.
    """

    nodes: Float[np.ndarray, "probes steps"]
    weights: Float[np.ndarray, "probes steps"]
    n: int
    dtype: str


@arguments.check(
    product=arguments.function, n=arguments.integer(1), probes=arguments.integer(2)
)
def trace(
    product: hvp.Product,
    n: int,
    *,
    probes: int = 32,
    dtype: DTypeLike = jnp.float32,
    key: Key[Array, ""],
) -> Estimate:
    """Estimates the trace of a symmetric operator.

    Args:
      product: multiplies a vector [n] by the matrix. If it is a pytree, such as
        `hvp.operator` returns, its data are arguments of the compiled program instead
        of constants.
      n: length of the vectors.
      probes: number of random vectors, and of products, 2 or more.
      dtype: floating dtype of the vectors.
      key: random key for the vectors.

    Returns:
      An unbiased estimate; exact for a diagonal matrix.

    Raises:
      ValueError: if `probes` is less than 2, or a product is not finite.

    References:
      Hutchinson. A stochastic estimator of the trace of the influence matrix for
      Laplacian smoothing splines. 1990.
    """
    keys = jax.random.split(key, probes)
    forms = _forms(lanczos.as_operand(product), keys, n, np.dtype(dtype))
    forms = np.asarray(forms, np.float64)
    if not np.all(np.isfinite(forms)):
        raise ValueError(
            "product: expected finite numbers, got NaN or infinity; look for overflow "
            "in the loss or the network"
        )
    return _estimate(forms)


@arguments.check(
    product=arguments.function,
    n=arguments.integer(1),
    probes=arguments.integer(2),
    steps=arguments.integer(1),
)
def density(
    product: hvp.Product,
    n: int,
    *,
    probes: int = 8,
    steps: int = 80,
    dtype: DTypeLike = jnp.float32,
    key: Key[Array, ""],
) -> Quadrature:
    """Estimates the spectral density by stochastic Lanczos quadrature.

    Takes `probes * steps` products and the memory of `steps` vectors.

    Args:
      product: multiplies a vector [n] by the matrix. If it is a pytree, such as
        `hvp.operator` returns, its data are arguments of the compiled program instead
        of constants.
      n: length of the vectors.
      probes: number of random vectors, 2 or more.
      steps: number of products for each random vector, 1 or more and limited to n.
        Moments up to order 2 steps - 1 are exact for the probe.
      dtype: floating dtype of the vectors.
      key: random key for the vectors.

    Returns:
      Nodes and weights, the argument of `smooth` and `summarize`.

    Raises:
      ValueError: if an argument is out of range, or the first product of a probe is not
        finite.

    References:
      Ubaru, Chen, Saad. Fast estimation of tr(f(A)) via stochastic Lanczos quadrature.
      2017. Algorithm 1.

      Ghorbani, Krishnan, Xiao. An Investigation into Neural Net Optimization via
      Hessian Eigenvalue Density. 2019. arXiv:1901.10159, section 2.
    """
    keys = jax.random.split(key, probes)
    tridiagonals = _runs(
        lanczos.as_operand(product), keys, n, min(steps, n), np.dtype(dtype)
    )
    nodes, weights = np.zeros((2, probes, min(steps, n)))
    for i in range(probes):
        values, vectors = lanczos.ritz(jax.tree.map(lambda x: x[i], tridiagonals))  # noqa: B023
        nodes[i, : values.size] = values
        weights[i, : values.size] = vectors[0] ** 2
    return Quadrature(nodes, weights, n, np.dtype(dtype).name)


@arguments.check(
    quadrature=arguments.instance(Quadrature), width=arguments.number(0, above=True)
)
def smooth(
    quadrature: Quadrature, points: Any, width: float
) -> Float[np.ndarray, "points"]:
    """Evaluates a spectral density with a Gaussian at each node.

    Args:
      quadrature: nodes and weights from `density`.
      points: points at which to evaluate the density, [points].
      width: standard deviation of the Gaussians, above 0, in the unit of the
        eigenvalues.

    Returns:
      The density at the points, float64; its integral over the real line is 1.

    Raises:
      ValueError: if `width` is not above 0.
    """
    points = np.asarray(points, np.float64)
    result = np.zeros(points.shape)
    for nodes, weights in zip(quadrature.nodes, quadrature.weights, strict=True):
        standardized = (points[:, None] - nodes[None]) / width
        result += np.exp(-(standardized**2) / 2) @ weights
    return result / (len(quadrature.nodes) * width * np.sqrt(2 * np.pi))


@arguments.check(
    quadrature=arguments.instance(Quadrature),
    threshold=arguments.optional(arguments.number(0)),
)
def summarize(
    quadrature: Quadrature, *, threshold: float | None = None
) -> dict[str, float]:
    """Computes the statistics of `eigenvalues.summarize` for an estimated spectrum.

    Args:
      quadrature: nodes and weights from `density`.
      threshold: an eigenvalue is negative below -`threshold`, 0 or more; None for the
        machine epsilon times the square root of n times the largest magnitude of a
        node.

    Returns:
      "n", "max" and "min" (the outermost nodes, which lie inside the spectrum),
      "trace", "threshold", "negative_fraction", "negative_mass", and the standard
      errors over probes "trace_error", "negative_fraction_error" and
      "negative_mass_error". Eigenvalues near zero that are not resolved by the number
      of steps bias the fraction, which its error does not show; the mass is hardly
      affected.
    """
    nodes, weights = quadrature.nodes, quadrature.weights
    largest = float(np.max(np.abs(nodes)))
    if threshold is None:
        threshold = float(
            np.finfo(quadrature.dtype).eps * np.sqrt(quadrature.n) * largest
        )
    negative = weights * (nodes < -threshold)
    traces = _estimate(quadrature.n * np.sum(weights * nodes, axis=1))
    fractions = _estimate(np.sum(negative, axis=1))
    masses = _ratio(
        np.sum(negative * np.abs(nodes), axis=1),
        np.sum(weights * np.abs(nodes), axis=1),
    )
    # Probes that stopped early are padded with nodes of weight 0.
    nonzero_nodes = nodes[weights > 0]
    return {
        "n": float(quadrature.n),
        "max": float(nonzero_nodes.max()),
        "min": float(nonzero_nodes.min()),
        "trace": traces.mean,
        "trace_error": traces.error,
        "threshold": float(threshold),
        "negative_fraction": fractions.mean,
        "negative_fraction_error": fractions.error,
        "negative_mass": masses.mean,
        "negative_mass_error": masses.error,
    }


def _estimate(samples: Float[np.ndarray, "probes"]) -> Estimate:
    error = np.std(samples, ddof=1) / np.sqrt(samples.size)
    return Estimate(float(np.mean(samples)), float(error))


def _ratio(
    part: Float[np.ndarray, "probes"], whole: Float[np.ndarray, "probes"]
) -> Estimate:
    """Estimates the ratio of two means, with its standard error to first order."""
    if not np.any(whole):
        return Estimate(0.0, 0.0)
    ratio = np.mean(part) / np.mean(whole)
    error = _estimate((part - ratio * whole) / np.mean(whole)).error
    return Estimate(float(ratio), error)


def _signs(key: Key[Array, ""], n: int, dtype: np.dtype) -> Float[Array, "n"]:
    # Signs, not Gaussians: squares of 1 make the trace of a diagonal matrix exact.
    return jax.random.rademacher(key, (n,), dtype)


def _compiled_forms(
    product: hvp.Product, keys: Key[Array, "probes"], n: int, dtype: np.dtype
) -> Float[Array, "probes"]:
    def form(key: Key[Array, ""]) -> Float[Array, ""]:
        vector = _signs(key, n, dtype)
        return jnp.vdot(vector, product(vector))

    return lax.map(form, keys)


def _compiled_runs(
    product: hvp.Product,
    keys: Key[Array, "probes"],
    n: int,
    steps: int,
    dtype: np.dtype,
) -> lanczos.Tridiagonal:
    def run(key: Key[Array, ""]) -> lanczos.Tridiagonal:
        tridiagonal = lanczos.tridiagonalize(product, _signs(key, n, dtype), steps)
        # Quadrature does not need the basis; stacking it would take the memory of
        # `probes * steps` vectors.
        return tridiagonal._replace(basis=jnp.zeros((0, n), dtype))

    return lax.map(run, keys)


_forms = jax.jit(_compiled_forms, static_argnums=(2, 3))
_runs = jax.jit(_compiled_runs, static_argnums=(2, 3, 4))
