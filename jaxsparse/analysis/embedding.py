"""Embeddings of solutions in the plane: metric MDS and PCA.

Runs on the host, on numpy arrays.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Key, Shaped
from scipy.spatial import distance

from jaxsparse import arguments, extras


class Embedding(NamedTuple):
    """Points whose mutual distances approximate given distances.

    Attributes:
      points: coordinates, [m, d] in float64, one row per point, centered and rotated to
        their principal axes.
      stress: sum over pairs of the squared difference between the distance of the
        points and the given distance.
      relative_stress: square root of the ratio of `stress` to the sum of the squared
        given distances; 0 is perfect, 0.05 good, 0.2 poor (after Kruskal).
    """

    points: Float[np.ndarray, "m d"]
    stress: float
    relative_stress: float


class Components(NamedTuple):
    """Coordinates along the principal components.

    Attributes:
      points: coordinates, [m, d], one row per vector, centered.
      explained: fraction of the variance along each axis, [d], in [0, 1]; NaN if the
        vectors do not vary.
      axes: the principal axes in the space of the vectors, [d, n], orthonormal rows.
    """

    points: Float[np.ndarray, "m d"]
    explained: Float[np.ndarray, "d"]
    axes: Float[np.ndarray, "d n"]


@arguments.check(
    dimensions=arguments.integer(1),
    starts=arguments.integer(1),
    iterations=arguments.integer(1),
    tolerance=arguments.number(0),
)
def mds(
    distances: Shaped[np.ndarray, "..."],
    *,
    dimensions: int = 2,
    starts: int = 16,
    iterations: int = 1000,
    tolerance: float = 1e-9,
    key: Key[Array, ""],
) -> Embedding:
    """Embeds points such that their distances approximate given ones (metric MDS).

    Scikit-learn's SMACOF runs from several random starts, and the result with the
    lowest stress is kept. The points are then rotated to their principal axes, and
    reflected such that the farthest point on each axis has a positive coordinate; both
    preserve every distance.

    Args:
      distances: matrix of distances, [m, m] with m of 2 or more, symmetric, zero on the
        diagonal, such as `pairwise.pairwise` returns.
      dimensions: number of coordinates of each point, 1 or more.
      starts: number of random starts, 1 or more.
      iterations: maximum number of iterations from each start, 1 or more.
      tolerance: relative decrease of the stress below which the iteration stops, 0 or
        more. It is applied to distances scaled to a mean square of 1.
      key: random key for the starts.

    Returns:
      The embedding; points are in the order of the rows of `distances`.

    Raises:
      ValueError: if `distances` is not such a matrix, or another argument is out of
        range.

    Examples:
      >>> distances = np.array([[0.0, 3.0, 4.0], [3.0, 0.0, 5.0], [4.0, 5.0, 0.0]])
      >>> found = mds(distances, key=jax.random.key(0))
      >>> found.points.shape
      (3, 2)
      >>> round(float(np.linalg.norm(found.points[1] - found.points[2])), 3)
      5.0

    Deviations:
      Whether Evci et al. (2020), arXiv:2010.03533, use metric MDS is unknown.

    References:
      de Leeuw. Applications of Convex Analysis to Multidimensional Scaling. 1977.
      Kruskal. Nonmetric Multidimensional Scaling: A Numerical Method. 1964.
    """
    matrix = _check_distances(distances)
    scale = float(np.max(matrix))
    if scale == 0:
        return Embedding(np.zeros((len(matrix), dimensions)), 0.0, 0.0)
    # Dividing by the maximum first keeps the squares from overflowing or underflowing.
    scale *= float(np.sqrt(np.mean((matrix / scale) ** 2)))
    extras.require("sklearn", purpose="MDS")
    from sklearn import manifold  # on use, as the import takes a second

    points, _ = manifold.smacof(
        matrix / scale,
        n_components=dimensions,
        n_init=starts,
        max_iter=iterations,
        eps=tolerance,
        random_state=int(jax.random.bits(key, dtype=np.uint32)),
    )
    points = _rotated(points)
    target = distance.squareform(matrix / scale, checks=False)
    stress = float(np.sum((distance.pdist(points) - target) ** 2))
    relative = (stress / float(np.sum(target**2))) ** 0.5
    return Embedding(points * scale, stress * scale**2, relative)


def _check_distances(distances: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "m m"]:
    """Validates distances and returns them in float64, exactly symmetric."""
    matrix = np.asarray(distances, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ValueError(
            f"distances: expected shape (m, m) with m of at least 2, got {matrix.shape}"
        )
    is_invalid = ~np.isfinite(matrix) | (matrix < 0)
    if np.any(is_invalid):
        raise ValueError(
            "distances: expected finite numbers of at least 0, got "
            f"{matrix[is_invalid][0]}"
        )
    # Leaves room for the rounding of distances computed in float32.
    tolerance_abs = 1e-5 * np.max(matrix)
    if np.any(np.abs(matrix - matrix.T) > tolerance_abs) or np.any(
        np.diag(matrix) > tolerance_abs
    ):
        raise ValueError(
            "distances: expected a symmetric matrix with zeros on the diagonal, got "
            "another one; average both directions of an asymmetric measure"
        )
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 0.0)
    return matrix


def _rotated(points: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m d"]:
    """Centers points and rotates them to their principal axes."""
    centered = points - np.mean(points, axis=0)
    axes, sizes, _ = np.linalg.svd(centered, full_matrices=False)
    # m points span at most m axes; further dimensions stay zero.
    rotated = np.zeros_like(centered)
    rotated[:, : sizes.size] = axes * sizes
    return rotated * _signs(rotated)


def _signs(points: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "d"]:
    """Returns the sign for each axis that makes its farthest point positive."""
    farthest = np.argmax(np.abs(points), axis=0)
    extremes = points[farthest, np.arange(points.shape[1])]
    return np.where(extremes < 0, -1.0, 1.0).astype(points.dtype)


@arguments.check(dimensions=arguments.integer(1))
def pca(vectors: Shaped[np.ndarray, "..."], *, dimensions: int = 2) -> Components:
    """Projects vectors on their principal components, with scikit-learn.

    Memory is a few times that of the vectors. The sign of each axis is chosen such that
    the point farthest from zero has a positive coordinate.

    Args:
      vectors: [m, n] with m of 2 or more, one vector per row, finite, such as
        `similarity.flatten` returns.
      dimensions: number of components to keep, from 1 to the smaller of m and n.

    Returns:
      The components; points are in the order of the rows. The dtype is float32 for
      float32 vectors, else float64.

    Raises:
      ValueError: if `vectors` is not a finite matrix of two or more rows, or
        `dimensions` is out of range.

    Examples:
      >>> found = pca(np.array([[0.0, 0.0], [3.0, 4.0], [12.0, 16.0]]), dimensions=1)
      >>> found.points.round(3)
      array([[-8.333],
             [-3.333],
             [11.667]])
    """
    matrix = np.asarray(vectors)
    if not np.issubdtype(matrix.dtype, np.floating):
        matrix = matrix.astype(np.float64)
    if matrix.ndim != 2 or len(matrix) < 2 or not np.all(np.isfinite(matrix)):
        raise ValueError(
            f"vectors: expected two or more rows of finite numbers, got shape "
            f"{matrix.shape}, all finite: {bool(np.all(np.isfinite(matrix)))}"
        )
    if dimensions > min(matrix.shape):
        raise ValueError(
            f"dimensions: expected 1 to {min(matrix.shape)}, since vectors have shape "
            f"{matrix.shape}, got {dimensions}"
        )
    extras.require("sklearn", purpose="PCA")
    from sklearn import decomposition  # on use, as the import takes a second

    model = decomposition.PCA(n_components=dimensions, svd_solver="full")
    # Equal vectors have no variance to explain; the resulting 0/0 is documented as NaN.
    with np.errstate(invalid="ignore"):
        points = model.fit_transform(matrix)
    signs = _signs(points)
    return Components(
        points * signs,
        model.explained_variance_ratio_,
        model.components_ * signs[:, None],
    )
