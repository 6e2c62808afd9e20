r"""The whole spectrum of a large Hessian, estimated: its trace and its density.

For a random vector :math:`v` of signs, :math:`v^\top A v` is the trace on average.
Likewise :math:`v^\top f(A) v / n` is the mean of :math:`f` over the spectrum, and
Lanczos' method from :math:`v` gives it as a sum over nodes (the Ritz values) with
weights (the squared first entries of the eigenvectors of T). So nodes and weights are
an estimate of the spectral density. `lanczos` has the method; here it is repeated for
several vectors.
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
      error: its standard error.
    """

    mean: float
    error: float


class Quadrature(NamedTuple):
    """A spectral density as nodes and weights.

    Attributes:
      nodes: eigenvalues, [probes, steps]; 0 with weight 0 where a probe ended early.
      weights: not negative, of sum 1 for each probe.
      n: how many eigenvalues the density stands for.
      dtype: name of the type of the products.
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
      product: as in `lanczos.extremes`.
      n: length of the vectors.
      probes: number of random vectors and of products, 2 or more.
      dtype: of the vectors.
      key: draws the vectors.

    Returns:
      An unbiased estimate; exact for a diagonal matrix.

    Raises:
      ValueError: for fewer than 2 probes, or if a product is not finite.

    References:
      Hutchinson. A stochastic estimator of the trace of the influence matrix for
      Laplacian smoothing splines. 1990.
    """
    keys = jax.random.split(key, probes)
    forms = _forms(lanczos.as_operand(product), keys, n, np.dtype(dtype))
    forms = np.asarray(forms, np.float64)
    if not np.all(np.isfinite(forms)):
        raise ValueError(
            "product: not finite; wanted finite numbers; look for overflow in the loss "
            "or the network"
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

    Takes `probes * steps` products, and the memory of `steps` vectors.

    Args:
      product: as in `lanczos.extremes`.
      n: length of the vectors.
      probes: number of random vectors, 2 or more.
      steps: products for each, at most n are made. Moments of the density up to
        2 steps - 1 are those of the probe.
      dtype: of the vectors.
      key: draws the vectors.

    Returns:
      Nodes and weights, to be read by `smooth` and `summarise`.

    Raises:
      ValueError: for counts out of range, or if a product is not finite.

    References:
      Ubaru, Chen, Saad. Fast estimation of tr(f(A)) via stochastic Lanczos quadrature.
      2017. Algorithm 1.

      Ghorbani, Krishnan, Xiao. An Investigation into Neural Net Optimization via
      Hessian Eigenvalue Density. 2019. arXiv:1901.10159, section 2.
    """
    keys = jax.random.split(key, probes)
    found = _runs(lanczos.as_operand(product), keys, n, min(steps, n), np.dtype(dtype))
    nodes, weights = np.zeros((2, probes, min(steps, n)))
    for i in range(probes):
        values, turns = lanczos.ritz(jax.tree.map(lambda x: x[i], found))  # noqa: B023
        nodes[i, : values.size] = values
        weights[i, : values.size] = turns[0] ** 2
    return Quadrature(nodes, weights, n, np.dtype(dtype).name)


@arguments.check(
    found=arguments.instance(Quadrature), width=arguments.number(0, above=True)
)
def smooth(found: Quadrature, points: Any, width: float) -> Float[np.ndarray, "points"]:
    """Evaluates a density, every node a Gaussian.

    Args:
      found: what `density` returned.
      points: where to evaluate it.
      width: standard deviation of the Gaussians, above 0.

    Returns:
      The density at the points; it integrates to 1.

    Raises:
      ValueError: if the width is not above 0.
    """
    points = np.asarray(points, np.float64)
    result = np.zeros(points.shape)
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        apart = (points[:, None] - nodes[None]) / width
        result += np.exp(-(apart**2) / 2) @ weights
    return result / (len(found.nodes) * width * np.sqrt(2 * np.pi))


@arguments.check(
    found=arguments.instance(Quadrature),
    threshold=arguments.optional(arguments.number(0)),
)
def summarise(found: Quadrature, *, threshold: float | None = None) -> dict[str, float]:
    """Describes an estimated spectrum by the numbers of `spectra.summarise`.

    Args:
      found: what `density` returned.
      threshold: how far below zero an eigenvalue is negative; None for the rule of
        `spectra`, with the largest node as the largest eigenvalue.

    Returns:
      "n", "max" and "min" (the outermost nodes, inside the spectrum), "trace",
      "threshold", "negative_fraction", "negative_mass", and the standard errors over
      probes "trace_error", "negative_fraction_error" and "negative_mass_error".
      Eigenvalues near zero that the steps do not resolve make the fraction biased,
      which its error does not show; mass hardly suffers.
    """
    nodes, weights = found.nodes, found.weights
    largest = float(np.max(np.abs(nodes)))
    if threshold is None:
        threshold = float(np.finfo(found.dtype).eps * np.sqrt(found.n) * largest)
    negative = weights * (nodes < -threshold)
    traces = _estimate(found.n * np.sum(weights * nodes, axis=1))
    fractions = _estimate(np.sum(negative, axis=1))
    masses = _ratio(
        np.sum(negative * np.abs(nodes), axis=1),
        np.sum(weights * np.abs(nodes), axis=1),
    )
    seen = nodes[weights > 0]
    return {
        "n": float(found.n),
        "max": float(seen.max()),
        "min": float(seen.min()),
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
    """Estimates the ratio of two means, its error to first order."""
    if not np.any(whole):
        return Estimate(0.0, 0.0)
    ratio = np.mean(part) / np.mean(whole)
    error = _estimate((part - ratio * whole) / np.mean(whole)).error
    return Estimate(float(ratio), error)


def _signs(key: Key[Array, ""], n: int, dtype: np.dtype) -> Float[Array, "n"]:
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
        found = lanczos.tridiagonalise(product, _signs(key, n, dtype), steps)
        return found._replace(basis=jnp.zeros((0, n), dtype))  # one basis at a time

    return lax.map(run, keys)


_forms = jax.jit(_compiled_forms, static_argnums=(2, 3))
_runs = jax.jit(_compiled_runs, static_argnums=(2, 3, 4))
