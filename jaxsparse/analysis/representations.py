"""Similarity of representations: linear centered kernel alignment (CKA)."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def linear_cka(
    first: Float[Array, "n ..."],
    second: Float[Array, "_ ..."],
    *,
    unbiased: bool = False,
) -> Float[Array, ""]:
    r"""Computes the similarity of two layers' representations of the same examples.

    With the Gram matrices :math:`K = X X^T` and :math:`L = Y Y^T` over examples, CKA is
    :math:`\mathrm{HSIC}(K, L) / \sqrt{\mathrm{HSIC}(K, K) \, \mathrm{HSIC}(L, L)}`. It
    is invariant to rotation, translation and scaling of either representation, and
    needs no correspondence between units.

    Memory is that of a matrix of examples by examples, or of units by units where that
    is smaller.

    Args:
      first: activations of one layer, [n, ...], floating; axes after the first are
        flattened.
      second: activations of another layer or network for the same examples, [n, ...];
        the number of units may differ.
      unbiased: whether to use the unbiased estimate of HSIC, with which unrelated
        layers have values around 0 for any number of examples. The biased estimate
        grows with the ratio of units to examples.

    Returns:
      A similarity in [0, 1], or in [-1, 1] if unbiased; NaN if a layer is constant.

    Raises:
      ValueError: if the numbers of examples differ or are less than 2 (4 if
        `unbiased`).

    Examples:
      >>> x = jnp.array([[1.0], [2.0], [4.0]])
      >>> round(float(linear_cka(x, 3.0 - 2.0 * x)), 6)
      1.0

    References:
      Kornblith, Norouzi, Lee, Hinton. Similarity of Neural Network Representations
      Revisited. 2019. arXiv:1905.00414, section 3.

      Song, Smola, Gretton, Borgwardt, Bedo. Supervised Feature Selection via Dependence
      Estimation. 2007. arXiv:0704.2668, equation 5: the unbiased HSIC.

      Nguyen, Raghu, Kornblith. Do Wide and Deep Networks Learn the Same Things? 2021.
      arXiv:2010.15327, section 2.
    """
    minimum = 4 if unbiased else 2
    if first.shape[0] != second.shape[0] or first.shape[0] < minimum:
        raise ValueError(
            f"second: expected as many examples as in first, {first.shape[0]}, and at "
            f"least {minimum}, got {second.shape[0]}"
        )
    x, y = _prepare(first), _prepare(second)
    cross, self_x, self_y = (
        _hsic(a, b, unbiased=unbiased) for a, b in ((x, y), (x, x), (y, y))
    )
    value = cross / (jnp.sqrt(self_x) * jnp.sqrt(self_y))
    return jnp.clip(value, -1.0 if unbiased else 0.0, 1.0)


def _prepare(activations: Float[Array, "n ..."]) -> Float[Array, "n p"]:
    """Flattens, centers and scales activations so that no product overflows."""
    wide = jnp.promote_types(activations.dtype, jnp.float32)
    x = activations.reshape(activations.shape[0], -1).astype(wide)
    # CKA does not change with scale, but HSIC sums fourth powers of the activations,
    # which overflow float32 above about 4e9.
    largest = jnp.max(jnp.abs(x))
    x = x / jnp.where(largest == 0, 1.0, largest)
    x = x - jnp.mean(x, axis=0, keepdims=True)
    return x * jnp.sqrt(x.shape[0] / jnp.sum(x * x))


def _hsic(
    x: Float[Array, "n p"], y: Float[Array, "n q"], *, unbiased: bool
) -> Float[Array, ""]:
    """Computes HSIC of centered activations, up to a factor that depends only on n.

    If the rows are centered and :math:`r` is the diagonal of a Gram matrix, the matrix
    without its diagonal has the row sums :math:`-r`. Equation 5 of Song et al. then
    simplifies to the expression used here.
    """
    n = x.shape[0]
    value = _product(x, y)
    if not unbiased:
        return value
    r, s = jnp.sum(x * x, axis=1), jnp.sum(y * y, axis=1)
    shared = n / (n - 2) * jnp.sum(r * s)
    return value - shared + jnp.sum(r) * jnp.sum(s) / ((n - 1) * (n - 2))


def _product(x: Float[Array, "n p"], y: Float[Array, "n q"]) -> Float[Array, ""]:
    """Sums the products of the entries of the two Gram matrices.

    This is also the squared Frobenius norm of X^T Y; the smaller matrix is used.
    """

    def times(a: Array, b: Array) -> Array:
        # By default, accelerators round the factors to 11 significant bits or fewer.
        return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)

    if x.shape[0] ** 2 <= x.shape[1] * y.shape[1]:
        return jnp.sum(times(x, x.T) * times(y, y.T))
    return jnp.sum(times(x.T, y) ** 2)
